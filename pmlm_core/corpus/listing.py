"""What lies in a folder or matches a glob, on the local disk or in a store, each file once and none silently left out.

Local folders are walked here and not by pyarrow, which follows a link that leads back to a folder above it again and
again, and gives up a whole folder for one name that is not UTF-8.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow.fs as pafs

from pmlm_core.errors import DataError
from pmlm_core.storage import is_remote, normalise, resolve, split_query, with_query

_WILD = re.compile(r"[*?\[]")


class Found(NamedTuple):
    """A file, or with a `reason` (of `rejects.REASONS`) something that is left out.

    `named` says whether the user named this very file; `identity` is the same for all names of a local file; `linked`
    tells that it was reached through a link.
    """

    uri: str
    size: int
    mtime_ns: int
    named: bool = False
    reason: str = ""
    identity: tuple[int, int] | None = None
    linked: bool = False


def matches(text: str) -> Iterator[Found]:
    """Yield what `text` names: a file, all below a folder, or all that a glob matches; real files before linked ones.

    Raises:
        DataError: it cannot be listed, or is no name or pattern at all.
    """
    if not _is_utf8(text):
        raise DataError(f"input '{_safe(text)}': the name is not UTF-8, and so cannot be read; rename it")
    try:
        yield from _stored(text) if is_remote(text) else _local(normalise(text))
    except OSError as error:
        raise DataError(f"input '{text}' cannot be listed: {error}") from None
    except re.error as error:
        raise DataError(f"input '{text}' is no pattern: {error}") from None


def _stored(text: str) -> Iterator[Found]:
    file_system, path = resolve(text)
    prefix, query = text.partition("://")[0] + "://", split_query(text)[1]
    info = file_system.get_file_info(path)
    if info.type == pafs.FileType.File:
        yield Found(normalise(with_query(prefix + path, query)), int(info.size), int(info.mtime_ns or 0), named=True)
        return
    glob = _Glob.of(path, is_folder=info.type == pafs.FileType.Directory)
    if glob is None:
        return
    # A pattern without folders in it needs no listing of the whole bucket.
    selector = pafs.FileSelector(glob.base, recursive=glob.deep, allow_not_found=True)
    for info in file_system.get_file_info(selector):
        if info.type == pafs.FileType.File and glob.takes(info.path):
            reason = "hidden" if glob.hides(info.path) else ""
            uri = with_query(prefix + info.path, query)
            yield Found(uri, int(info.size), int(info.mtime_ns or 0), reason=reason)


def _local(path: str) -> Iterator[Found]:
    if os.path.isfile(path):
        state = os.stat(path)
        yield Found(path, state.st_size, state.st_mtime_ns, True, identity=(state.st_dev, state.st_ino))
        return
    glob = _Glob.of(path, is_folder=os.path.isdir(path))
    if glob is None or not os.path.isdir(glob.base):
        return
    yield from sorted(_walk(glob.base, glob, (), linked=False), key=lambda found: (found.linked, found.uri))


def _walk(folder: str, glob: "_Glob", above: tuple[tuple[int, int], ...], linked: bool) -> Iterator[Found]:
    """All of a folder that `glob` takes; `above` are the folders on the way to it, which no link may lead back to."""
    try:
        here = os.stat(folder)
        entries = os.scandir(folder)
    except PermissionError:
        if glob.hides(folder):  # a system's bin or index, not the user's text
            return
        raise
    above = (*above, (here.st_dev, here.st_ino))
    with entries:
        for entry in entries:
            path, through_link = entry.path, linked or entry.is_symlink()
            if not _is_utf8(path):
                yield Found(_safe(path), 0, 0, reason="bad_name")
                continue
            try:
                state = entry.stat()
            except FileNotFoundError:  # a link that leads nowhere, or it was removed just now
                if glob.takes(path) and not glob.hides(path):
                    yield Found(path, 0, 0, reason="no_file")
                continue
            identity = (state.st_dev, state.st_ino)
            if stat.S_ISDIR(state.st_mode):
                if glob.enters(path) and identity not in above:
                    yield from _walk(path, glob, above, through_link)
            elif glob.takes(path):
                reason = "hidden" if glob.hides(path) else "" if stat.S_ISREG(state.st_mode) else "no_file"
                yield Found(path, state.st_size, state.st_mtime_ns, False, reason, identity, through_link)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _safe(path: str) -> str:
    """A name that can be printed, with \\x and two digits for each byte that is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class _Glob:
    """A folder to search through, and the pattern (None: everything) that paths in it must match."""

    base: str
    pattern: re.Pattern[str] | None
    segments: tuple[re.Pattern[str] | None, ...]  # of folders below `base`, then of the file; None: `**`, any depth
    asked_first: frozenset[str]

    @classmethod
    def of(cls, path: str, is_folder: bool) -> "_Glob | None":
        if is_folder:
            return cls(path, None, (None,), frozenset())
        if not _WILD.search(path):
            return None
        base = _base(path)
        wild = path[len(base) :].strip("/").split("/")
        segments = tuple(None if "**" in segment else re.compile(_regex(segment)) for segment in wild)
        # `_*.jsonl` asks for such names itself.
        asked_first = frozenset(segment[0] for segment in wild if segment.startswith((".", "_")))
        return cls(base, re.compile(_regex(path)), segments, asked_first)

    @property
    def deep(self) -> bool:
        """Whether anything below the folders in `base` may match."""
        return len(self.segments) > 1 or self.segments[0] is None

    def takes(self, path: str) -> bool:
        return self.pattern is None or self.pattern.fullmatch(path) is not None

    def enters(self, folder: str) -> bool:
        """Whether files below `folder` may match: what cannot match need not be readable, either."""
        for at, name in enumerate(self._inside(folder)):
            if at >= len(self.segments):
                return False
            segment = self.segments[at]
            if segment is None:
                return True
            if at == len(self.segments) - 1 or not segment.fullmatch(name):
                return False
        return True

    def hides(self, path: str) -> bool:
        """Whether a name on the way begins with `.` or `_`, and the pattern does not ask for such names."""
        return any(part.startswith((".", "_")) and part[0] not in self.asked_first for part in self._inside(path))

    def _inside(self, path: str) -> list[str]:
        return path[len(self.base) :].strip("/").split("/")


def _base(path: str) -> str:
    """The folder above the first segment that holds a wildcard."""
    fixed = []
    for segment in path.split("/"):
        if _WILD.search(segment):
            break
        fixed.append(segment)
    return "/".join(fixed) or "/"


def _regex(pattern: str) -> str:
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
