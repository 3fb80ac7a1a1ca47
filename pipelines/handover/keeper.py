"""An actor on the driver's machine: it reads and writes files there for processes that do not see that disk.

A folder may have a holder: the one process that may change what is in it. A worker that was given up and lives on
holds nothing any more, so it cannot spoil what its successor writes. (A keeper that crashed and that Ray has started
again knows no holders: they may write, and so may the ones given up.)
"""

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from pipelines.handover.links import lies_in
from pipelines.lock import FILE_NAME as LOCK

LEASE_S = 60.0
"""A holder that has not been heard of for so long may be followed by another that waits for the folder."""
SUPERSEDED = -1
"""In place of an error number: another process holds the folder now."""
_DRAFT = ".kept"
_REPLACED = ".replaced-"
_LEFT = (".writing-", ".pruned-", _REPLACED)  # as pmlm_core.training.checkpoint names what is half there and half gone
_REMEMBERED = 1000
Answer = tuple[Any, tuple[int, str] | None]


def _told(work: Callable[..., Any]) -> Callable[..., Answer]:
    """Give errors as values: Ray would wrap them, and the number would be lost."""

    @wraps(work)
    def answer(*arguments: Any) -> Answer:
        try:
            return work(*arguments), None
        except _Superseded as error:
            return None, (SUPERSEDED, str(error))
        except OSError as error:
            return None, (error.errno or errno.EIO, error.strerror or str(error))

    return answer


class _Superseded(Exception):
    """Another process holds the folder."""


class _Hold:
    """Who may change a folder, when he was last heard of, and the lock that keeps processes of this machine out."""

    def __init__(self, holder: str, handle: int | None) -> None:
        self.holder, self.handle, self.heard = holder, handle, time.monotonic()

    def drop(self) -> None:
        if self.handle is not None:
            os.close(self.handle)


class Keeper:
    """File operations below `writes`, and reading below `reads` as well; nothing else of the machine is shown.

    Every method gives (value, None), or (None, (error number, words)).
    """

    def __init__(self, writes: Sequence[str], reads: Sequence[str] = ()) -> None:
        self._writes = [os.path.realpath(path) for path in writes]
        self._reads = [*self._writes, *(os.path.realpath(path) for path in reads)]
        self._holds: dict[str, _Hold] = {}
        self._appended: dict[str, None] = {}
        self._changing = threading.Lock()

    @_told
    def info(self, path: str) -> tuple[bool, int, float] | None:
        """Whether it is a folder, its bytes, the time of its last change; None if nothing is there."""
        try:
            status = self._readable(path).stat()
        except FileNotFoundError:
            return None
        return os.path.isdir(path), status.st_size, status.st_mtime

    @_told
    def listed(self, path: str) -> list[tuple[str, bool, int, float]]:
        """Name and `info` of everything in a folder; what is being written is hidden."""
        found = []
        for each in os.scandir(self._readable(path)):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                status = each.stat()
                found.append((each.name, each.is_dir(), status.st_size, status.st_mtime))
        return sorted(found)

    @_told
    def read(self, path: str, offset: int, nbytes: int) -> bytes:
        with self._readable(path).open("rb") as file:
            file.seek(offset)
            return file.read(nbytes)

    @_told
    def write(self, path: str, draft: str, offset: int, data: bytes, last: bool, holder: str) -> None:
        """Write a part of a file, which appears under its name, forced to disk, with the last part."""
        target = self._writable(path, holder)
        hidden = _draft_of(target, draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with hidden.open("r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(data)
                if last:
                    file.flush()
                    os.fsync(file.fileno())
            if last:
                self._writable(path, holder)  # it may have changed hands in the meantime
                hidden.replace(target)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise

    @_told
    def discard(self, path: str, draft: str) -> None:
        """Give up a file of which not all parts were written."""
        _draft_of(self._allowed(path, self._writes), draft).unlink(missing_ok=True)

    @_told
    def append(self, path: str, data: bytes, call: str) -> None:
        """Add lines to a file that several processes write to, in one write, so that they never mix.

        Args:
            call: names this call, which may come a second time if the first one's answer was lost.
        """
        with self._changing:
            if call in self._appended:
                return
            handle = os.open(self._allowed(path, self._writes), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":  # half a line, of when the disk was full
                    data = b"\n" + data
                if os.write(handle, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)
            self._appended[call] = None  # not before: a call that failed is made again
            if len(self._appended) > _REMEMBERED:
                del self._appended[next(iter(self._appended))]

    @_told
    def create(self, path: str, data: bytes) -> None:
        """Write a small file unless there is one already; whoever holds the folder."""
        with contextlib.suppress(FileExistsError), self._allowed(path, self._writes).open("xb") as file:
            file.write(data)

    @_told
    def extend(self, path: str, size: int, data: bytes, holder: str) -> bool:
        """Add to a file that one process writes, forced to disk; False if it has not `size` bytes, as that believes."""
        target = self._writable(path, holder)
        have = target.stat().st_size if target.exists() else 0
        if have != size:
            return False
        with target.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return True

    @_told
    def rename(self, path: str, final: str, holder: str) -> None:
        """Give a finished folder its name; one that bears it already makes way. Done before, it is done."""
        source, target = self._writable(path, holder), self._writable(final, holder)
        if target.exists():
            if not source.exists():
                return
            # Whoever comes after a kill between the two renames puts it back: `_tidy`, or `checkpoint.sweep`.
            retired = target.with_name(f"{_REPLACED}{target.name}-{time.monotonic_ns()}")
            target.rename(retired)
            source.rename(target)
            shutil.rmtree(retired, ignore_errors=True)
            return
        source.rename(target)

    @_told
    def remove(self, path: str, holder: str) -> None:
        """Remove a file or a folder; nothing if it is not there."""
        self._remove(self._writable(path, holder))

    def _remove(self, path: Path) -> None:
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            return
        doomed = path.with_name(f".pruned-{path.name}-{time.monotonic_ns()}")  # half removed, it must not be seen
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    @_told
    def hold(self, path: str, holder: str, at_once: bool) -> bool:
        """Make `holder` the one that may change a folder; False while another one has it and is heard of.

        Args:
            at_once: whoever had it is known to be dead, or given up.
        """
        folder = self._allowed(path, self._writes)
        with self._changing:
            held = self._holds.get(str(folder))
            if held is not None and held.holder != holder:
                if not at_once and time.monotonic() - held.heard < LEASE_S:
                    return False
                self._holds.pop(str(folder)).drop()
                held = None
            if held is None:
                folder.mkdir(parents=True, exist_ok=True)
                handle = None
                if not at_once and (handle := _lock(folder)) is None:
                    return False
                held = self._holds[str(folder)] = _Hold(holder, handle)
                _tidy(folder)
            held.heard = time.monotonic()
            return True

    @_told
    def renew(self, path: str, holder: str) -> bool:
        """Whether it still holds the folder, and is heard of."""
        held = self._holds.get(str(self._allowed(path, self._writes)))
        if held is None or held.holder != holder:
            return False
        held.heard = time.monotonic()
        return True

    @_told
    def let_go(self, path: str, holder: str) -> None:
        """End a hold; another's stays."""
        folder = str(self._allowed(path, self._writes))
        with self._changing:
            held = self._holds.get(folder)
            if held is not None and held.holder == holder:
                self._holds.pop(folder).drop()

    def _writable(self, path: str, holder: str) -> Path:
        allowed = self._allowed(path, self._writes)
        for folder, held in list(self._holds.items()):
            if lies_in(str(allowed), folder):
                if held.holder != holder:
                    raise _Superseded(f"another worker was put in this one's place in {folder}")
                held.heard = time.monotonic()
        return allowed

    def _readable(self, path: str) -> Path:
        return self._allowed(path, self._reads)

    @staticmethod
    def _allowed(path: str, roots: Sequence[str]) -> Path:
        real = os.path.realpath(path)
        if not any(lies_in(real, root) for root in roots):
            raise PermissionError(errno.EPERM, f"{path} is not a place that was handed to the workers")
        return Path(real)


def _draft_of(target: Path, draft: str) -> Path:
    return target.with_name(f".{target.name}.{draft}{_DRAFT}")


def _tidy(folder: Path) -> None:
    """Remove what a holder before, who was killed, had half written or half removed; put back what had made way."""
    for path in list(folder.rglob(f"{_REPLACED}*")):
        final = path.with_name(path.name.removeprefix(_REPLACED).rpartition("-")[0])
        if not final.exists():
            path.rename(final)
    for path in [*folder.rglob(f".*{_DRAFT}"), *(each for name in _LEFT for each in folder.rglob(f"{name}*"))]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lock(folder: Path) -> int | None:
    """The lock of `pipelines.lock`, None while another process of this machine has it."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
