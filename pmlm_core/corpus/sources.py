"""From what the user names (files, folders, globs, s3://, gs://) to the sorted list of files to read."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow.fs as pafs

from pmlm_core.corpus.formats import InputFormat, compression_of, is_plain_text, kind_of
from pmlm_core.errors import DataError, NotThereError, UnknownFormError
from pmlm_core.storage import is_remote, normalise, resolve, split_query, with_query

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, order=True)
class Source:
    """One input file: where it lies, its state, and how to read it."""

    uri: str
    size: int
    mtime_ns: int
    kind: str
    compression: str | None = None


def modified(uri: str, info: pafs.FileInfo) -> int:
    """When a file was last written, in ns since 1970.

    0 for what a job brought along: Ray unpacks that on every node, so the copies differ in age, and puts it below a
    folder that is named after the content.
    """
    return 0 if "/_ray_pkg_" in uri else int(info.mtime_ns or 0)


def list_sources(inputs: list[str], fmt: InputFormat, on_skip: Callable[[str], None] | None = None) -> list[Source]:
    """List the files that `inputs` name, sorted by URI, each once.

    Names that begin with `.` or `_` inside a folder or glob are markers (`_SUCCESS`), not data, unless a part of
    the glob begins so. Under `auto`, other
    files whose name tells no known form are passed to `on_skip`, plain text beside files of known forms among them.

    Args:
        inputs: files, folders (searched through), globs (`*`, `?`, `[...]`, `**`), local or s3:// or gs://.
        fmt: the form asked for; `auto` goes by names.
        on_skip: called with the URI of every file left out.

    Raises:
        NotThereError: an input matches nothing.
        UnknownFormError: a form cannot be told.
        DataError: an input cannot be listed.
    """
    found: dict[str, Source] = {}
    for text in inputs:
        unknown: list[str] = []
        plain = ""
        known = matched = False
        for uri, info, named in _matches(text):
            matched = True
            # Plain text beside files of a known form is a README more often than data; the form it would have to be
            # given holds for all input, and would read those files wrongly.
            name = split_query(uri)[0] if is_remote(uri) else uri
            beside = fmt.kind == "auto" and not named and is_plain_text(name)
            kind = None if beside else kind_of(name, fmt)
            if kind is None and named:
                raise UnknownFormError(
                    f"{uri}: its name does not tell its form; give --input_format (jsonl, parquet, ...)"
                )
            if kind is None:
                unknown.append(uri)
                plain = name if beside else plain
                continue
            known = True
            found[uri] = Source(uri, int(info.size), modified(uri, info), kind, compression_of(name))
        if not matched:
            raise NotThereError(f"input '{text}': no such file, folder or match; check the path (globs need quotes)")
        if not known:
            if plain:
                kind_of(plain, fmt)  # says what to do about plain text
            raise UnknownFormError(
                f"input '{text}': none of its files ({len(unknown)}) tells its form by name; give --input_format"
            )
        for uri in unknown:
            if on_skip:
                on_skip(uri)
    return sorted(found.values())


def _matches(text: str) -> Iterator[tuple[str, pafs.FileInfo, bool]]:
    """Yield (URI, info, whether the user named this very file)."""
    file_system, path = resolve(text)
    prefix, query = "", ""
    if is_remote(text):
        prefix = text.partition("://")[0] + "://"
        query = split_query(text)[1]
    try:
        info = file_system.get_file_info(path)
        if info.type == pafs.FileType.File:
            yield normalise(with_query(prefix + path, query)), info, True
            return
        if info.type == pafs.FileType.Directory:
            base, pattern = path, None
        elif _WILD.search(path):
            base, pattern = _glob_base(path), re.compile(_glob_regex(path))
        else:
            return
        # `_*.jsonl` asks for such names itself.
        wild = path[len(base) :].strip("/").split("/") if pattern else []
        asked_first = {part[0] for part in wild if part.startswith((".", "_"))}
        selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
        for info in file_system.get_file_info(selector):
            if info.type != pafs.FileType.File or (pattern and not pattern.fullmatch(info.path)):
                continue
            inside = info.path[len(base) :].strip("/").split("/")
            if not any(part.startswith((".", "_")) and part[0] not in asked_first for part in inside):
                yield with_query(prefix + info.path, query), info, False
    except OSError as error:
        raise DataError(f"input '{text}' cannot be listed: {error}") from None


def _glob_base(path: str) -> str:
    """The folder above the first segment that holds a wildcard."""
    fixed = []
    for segment in path.split("/"):
        if _WILD.search(segment):
            break
        fixed.append(segment)
    return "/".join(fixed) or "/"


def _glob_regex(pattern: str) -> str:
    """Translate a glob: `*` and `?` stay within a segment, `**` crosses segments."""
    out, position = [], 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            out.append("(?:.*/)?")
            position += 3
        elif rest.startswith("**"):
            out.append(".*")
            position += 2
        elif rest[0] == "*":
            out.append("[^/]*")
            position += 1
        elif rest[0] == "?":
            out.append("[^/]")
            position += 1
        elif rest[0] == "[" and "]" in rest[2:]:
            end = rest.index("]", 2)
            body = rest[1:end].replace("\\", "\\\\")
            out.append("[" + ("^" + body[1:] if body[0] in "!^" else body) + "]")
            position += end + 1
        else:
            out.append(re.escape(rest[0]))
            position += 1
    return "".join(out)
