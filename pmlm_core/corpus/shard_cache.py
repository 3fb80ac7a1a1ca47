"""Shards of an object store on this machine's disk: fetched whole, once, named by the digest of their content.

`PMLM_CACHE` names the folder, by default ~/.cache/pmlm. `PMLM_CACHE_GB` bounds what lies there, by default nothing
does: the shards used least recently go first. Training visits rows in no order, so a bound below the size of one set of
blocks means fetching most shards again and again.
"""

import contextlib
import fcntl
import math
import os
import shutil
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from pmlm_core import storage
from pmlm_core.corpus.manifest import ShardEntry
from pmlm_core.errors import ConfigError, DataError

CACHE_VARIABLE = "PMLM_CACHE"
LIMIT_VARIABLE = "PMLM_CACHE_GB"
_CHUNK = 8 << 20


def limit() -> int | None:
    """Bytes that fetched shards may occupy; None for no bound.

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


def fetch(uri: str, entry: ShardEntry) -> str:
    """Path of the local copy of a remote shard; one process of a machine fetches it, others wait for that.

    Raises:
        DataError: the shard is missing or another, or the disk has no room for it.
        ConfigError: `PMLM_CACHE_GB` is no number, or below the size of this shard.
        OSError: the object store failed again and again.
    """
    folder = Path(storage.absolute(os.environ.get(CACHE_VARIABLE) or "~/.cache/pmlm")) / "blocks"
    target = folder / f"{entry.sha256}.arrow"
    try:
        if not _is_there(target, entry):
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder / f"{entry.sha256}.part") as part:
                if not _is_there(target, entry):  # another process may have fetched it while this one waited
                    _reserve(folder, part, entry, uri)
                    storage.retried(lambda: _download(uri, entry, part))
                    os.replace(part.name, target)
    except FileNotFoundError:
        raise DataError(
            f"{uri}: the manifest names this shard, but it is missing; run `pmlm preprocess` again."
        ) from None
    except OSError as error:
        if storage.is_store_error(error):  # another attempt may mend it
            raise OSError(f"{uri} cannot be fetched: {error}") from error
        raise DataError(
            f"{uri} cannot be fetched into {folder}: {error}; make room there, or set {CACHE_VARIABLE} to a folder on "
            "a larger disk"
        ) from None
    touch(target)
    return str(target)


def touch(path: str | Path) -> None:
    """Note that a shard is in use."""
    with contextlib.suppress(OSError):  # evicted, or another user's
        os.utime(path)


def digest_of(path: str | Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_there(target: Path, entry: ShardEntry) -> bool:
    try:
        return target.stat().st_size == entry.bytes
    except FileNotFoundError:
        return False


def _download(uri: str, entry: ShardEntry, part: BinaryIO) -> None:
    file_system, path = storage.resolve(uri)
    digest = sha256()
    part.seek(0)
    with file_system.open_input_stream(path, compression=None) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            part.write(chunk)
    part.truncate()
    if digest.hexdigest() != entry.sha256:
        raise DataError(f"{uri} is not what the manifest says (its digest differs); run `pmlm preprocess` again.")


def _reserve(folder: Path, part: BinaryIO, entry: ShardEntry, uri: str) -> None:
    """Make sure that the shard fits the disk and the bound, and let `part` count as if it were whole."""
    with _locked(folder):
        bound = limit()
        if bound is not None:
            if entry.bytes > bound:
                raise ConfigError(
                    f"{uri} has {entry.bytes / 1e9:.3g} GB, more than {LIMIT_VARIABLE}={os.environ[LIMIT_VARIABLE]} "
                    "allows for all shards together; raise it"
                )
            _evict(folder, bound - entry.bytes)
        free = shutil.disk_usage(folder).free
        if free < entry.bytes:
            raise DataError(
                f"{uri} has {entry.bytes / 1e9:.3g} GB, and the disk of {folder} has {free / 1e9:.3g} GB free; make "
                f"room there, set {CACHE_VARIABLE} to a folder on a larger disk, or bound what is kept by "
                f"{LIMIT_VARIABLE}"
            )
        part.truncate(entry.bytes)


def _evict(folder: Path, allowed: int) -> None:
    """Delete what was used least recently until at most `allowed` bytes are left.

    A deleted shard that a process has mapped stays readable there. What is being fetched is left alone, even if the
    rest is more than allowed then.
    """
    found = []
    for path in (*folder.glob("*.arrow"), *folder.glob("*.part")):
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= allowed:
            return
        if path.suffix == ".arrow" or not _being_fetched(path):
            path.unlink(missing_ok=True)
            total -= size


def _being_fetched(part: Path) -> bool:
    """Whether a process has this file locked; else it is what a killed one left."""
    try:
        with open(part, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """Open `path`, empty, for one thread of all processes at a time; it is removed at the end unless it was renamed."""
    file = _open_locked(path)
    try:
        file.truncate(0)
        yield file
    finally:
        if _is_named(file):
            os.unlink(file.name)
        with contextlib.suppress(OSError):  # a full disk shows once more
            file.close()


def _open_locked(path: Path) -> BinaryIO:
    while True:
        file = open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o644))  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a network file system without locks: fetch it beside the others
            file.close()
            return open(path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part"), "w+b")
        if _is_named(file):
            return file
        file.close()  # who held it has renamed or removed it


def _is_named(file: BinaryIO) -> bool:
    """Whether an open file still lies under its name."""
    try:
        return os.path.samestat(os.stat(file.name), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
