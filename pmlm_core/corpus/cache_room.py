"""Room for what is fetched from object stores: within the disk, and within `PMLM_CACHE_GB` if that is set.

What was used least recently goes first. The time of use is kept as a file's time of access, set by hand; the time of
change tells whether its content was touched. How much lies there stands in a small file, so that the folder, which may
hold a hundred thousand files, is looked through only when there is something to delete.
"""

import contextlib
import fcntl
import math
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pmlm_core.errors import ConfigError, DataError

LIMIT_VARIABLE = "PMLM_CACHE_GB"
KEPT, COMING = (".arrow", ".batch"), ".part"
_USED = "used"
_lock = threading.Lock()
_oldest: dict[Path, deque[tuple[int, int, Path]]] = {}  # folder -> (time of use, bytes, path), as it was last seen


def limit() -> int | None:
    """Bytes that fetched files may occupy; None for no bound.

    Raises:
        ConfigError: the variable holds no positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return None
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < math.inf:
        raise ConfigError(f"{LIMIT_VARIABLE} is '{text}'; it bounds fetched shards in GB, for example 200")
    return int(gigabytes * 1e9)


def touch(path: str | Path) -> None:
    """Note that a file is in use."""
    with contextlib.suppress(OSError):  # evicted, or another user's
        os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))


def reserve(folder: Path, coming: BinaryIO, nbytes: int, uri: str) -> None:
    """Make sure that `nbytes` fit the disk and the bound, and let `coming` count as if they were there.

    Raises:
        ConfigError: the bound is below `nbytes`.
        DataError: the disk has no room.
    """
    with _locked(folder):
        bound = limit()
        if bound is None:
            (folder / _USED).unlink(missing_ok=True)  # not kept up; a process with a bound counts anew
        else:
            if nbytes > bound:
                raise ConfigError(
                    f"{uri} has {nbytes / 1e9:.3g} GB, more than {LIMIT_VARIABLE}={os.environ[LIMIT_VARIABLE]} "
                    "allows for all shards together; raise it"
                )
            used = _used(folder)
            if used is None or used + nbytes > bound:
                used = _evict(folder, used, bound - nbytes)
            (folder / _USED).write_text(str(used + nbytes))
        free = shutil.disk_usage(folder).free
        if free < nbytes:
            raise DataError(
                f"{uri} has {nbytes / 1e9:.3g} GB, and the disk of {folder} has {free / 1e9:.3g} GB free; make "
                f"room there, set PMLM_CACHE to a folder on a larger disk, or bound what is kept by {LIMIT_VARIABLE}"
            )
        coming.truncate(nbytes)


def _used(folder: Path) -> int | None:
    """Bytes there, or more (what a killed process reserved counts until the next look); None if nobody has counted."""
    try:
        return int((folder / _USED).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _evict(folder: Path, used: int | None, allowed: int) -> int:
    """Delete what was used least recently until at most `allowed` bytes are left; returns how many are.

    A deleted file that a process has mapped stays readable there. What is being fetched is left alone, even if the
    rest is more than allowed then.
    """
    queue = _oldest.setdefault(folder, deque())
    looked = False
    while used is None or used > allowed:
        if not queue or used is None:
            if looked:
                break
            looked = True
            used = _look(folder, queue)
            continue
        seen, nbytes, path = queue.popleft()
        with contextlib.suppress(FileNotFoundError):  # another process was faster, and has counted it
            if path.stat().st_atime_ns == seen and _removed(path):
                used -= nbytes
    return used or 0


def _look(folder: Path, queue: deque[tuple[int, int, Path]]) -> int:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((*KEPT, COMING)):
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat()
                    found.append((state.st_atime_ns, state.st_size, Path(entry.path)))
    queue.clear()
    queue.extend(sorted(found))
    return sum(nbytes for _, nbytes, _ in found)


def _removed(path: Path) -> bool:
    """Remove a file, but not what a process is fetching: that is locked, unless a killed one left it."""
    if path.suffix != COMING:
        path.unlink()
        return True
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        if not is_named(file):
            return False
        path.unlink()  # under the lock: who waits for it sees that the name is gone, and makes a new file
    return True


def is_named(file: BinaryIO) -> bool:
    """Whether an open file still lies under its name."""
    try:
        return os.path.samestat(os.stat(file.name), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        with _lock:
            yield
    finally:
        os.close(handle)
