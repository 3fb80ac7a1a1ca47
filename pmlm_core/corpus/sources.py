"""From what the user names (files, folders, globs, s3://, gs://) to the sorted list of files to read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pmlm_core.corpus.formats import InputFormat, compression_of, is_plain_text, kind_of, tells_a_form, unread_packing
from pmlm_core.corpus.listing import Found, matches
from pmlm_core.corpus.rejects import REASONS
from pmlm_core.errors import NotThereError, UnknownFormError
from pmlm_core.storage import is_remote, split_query


@dataclass(frozen=True, order=True)
class Source:
    """One input file: where it lies, its state, and how to read it."""

    uri: str
    size: int
    mtime_ns: int
    kind: str
    compression: str | None = None


class LeftOut(NamedTuple):
    """A file that is not taken; `reason` is one of `rejects.REASONS`."""

    uri: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.uri}: {self.detail}"


def modified(uri: str, mtime_ns: int | None) -> int:
    """When a file was last written, in ns since 1970.

    0 for what a job brought along: Ray unpacks that on every node, so the copies differ in age, and puts it below a
    folder that is named after the content.
    """
    return 0 if "/_ray_pkg_" in uri else int(mtime_ns or 0)


def list_sources(inputs: list[str], fmt: InputFormat, on_skip: Callable[[LeftOut], None] | None = None) -> list[Source]:
    """List the files that `inputs` name, sorted by URI, each once, whatever names and links lead to it.

    Names that begin with `.` or `_` inside a folder or glob are markers (`_SUCCESS`), not data, unless a part of the
    glob begins so. Under `auto`, files whose name tells no known form are left out, plain text beside files of known
    forms among them. Whatever is left out and might be text is passed to `on_skip`.

    Args:
        inputs: files, folders (searched through), globs (`*`, `?`, `[...]`, `**`), local or s3:// or gs://.
        fmt: the form asked for; `auto` goes by names.
        on_skip: called for every file left out.

    Raises:
        NotThereError: an input matches nothing.
        UnknownFormError: a form cannot be told.
        DataError: an input cannot be listed.
    """
    listing = _Listing(fmt)
    for text in inputs:
        listing.add(text)
    for left_out in listing.left_out.values():
        if on_skip and left_out.uri not in listing.taken:
            on_skip(left_out)
    return sorted(listing.taken.values())


class _Listing:
    """What has been found so far, over all inputs."""

    def __init__(self, fmt: InputFormat) -> None:
        self._fmt = fmt
        self.taken: dict[str, Source] = {}
        self.left_out: dict[str, LeftOut] = {}
        self._names: dict[tuple[int, int], str] = {}

    def add(self, text: str) -> None:
        unknown: list[str] = []
        plain = ""
        known = matched = False
        for found in matches(text):
            name = split_query(found.uri)[0] if is_remote(found.uri) else found.uri
            if found.reason:
                if found.reason != "hidden" or tells_a_form(name):
                    self._leave_out(found.uri, found.reason)
                continue
            matched = True
            # Plain text beside files of a known form is a README more often than data; the form it would have to be
            # given holds for all input, and would read those files wrongly.
            beside = self._fmt.kind == "auto" and not found.named and is_plain_text(name)
            packing = unread_packing(name)
            kind = None if beside or packing else kind_of(name, self._fmt)
            if kind is None and found.named:
                raise UnknownFormError(f"{found.uri}: {_why(packing)}")
            if kind is None:
                unknown.append(found.uri)
                plain = name if beside else plain
                reason = "plain_text" if beside else "unknown_form"
                self._leave_out(found.uri, reason, _why(packing) if packing else "")
                continue
            known = True
            self._take(
                found, Source(found.uri, found.size, modified(found.uri, found.mtime_ns), kind, compression_of(name))
            )
        if not matched:
            raise NotThereError(f"input '{text}': no such file, folder or match; check the path (globs need quotes)")
        if not known:
            if plain:
                kind_of(plain, self._fmt)  # says what to do about plain text
            packing = unread_packing(unknown[0])
            raise UnknownFormError(
                f"input '{text}': none of its files ({len(unknown)}) "
                + (
                    f"is read, the first of them {unknown[0]}: {_why(packing)}"
                    if packing
                    else "tells its form by name; give --input_format"
                )
            )

    def _take(self, found: Found, source: Source) -> None:
        if found.identity is not None:
            first = self._names.setdefault(found.identity, found.uri)
            if first != found.uri:
                self._leave_out(found.uri, "duplicate", f"another name of {first}; left out")
                return
        self.taken[source.uri] = source

    def _leave_out(self, uri: str, reason: str, detail: str = "") -> None:
        self.left_out.setdefault(uri, LeftOut(uri, reason, detail or REASONS[reason]))


def _why(packing: str) -> str:
    if packing:
        return f"files packed as {packing} are not read; unpack it, or store it as .gz or .zst"
    return "its name does not tell its form; give --input_format (jsonl, parquet, ...)"
