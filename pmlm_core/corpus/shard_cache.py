"""Shards of an object store, or parts of them, on this machine's disk: fetched once, named by their digests.

`PMLM_CACHE` names the folder, by default ~/.cache/pmlm. `PMLM_CACHE_GB` bounds what lies there, by default nothing does
(see `cache_room`). Every process checks the digest of a file when it first meets it.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from pmlm_core import storage
from pmlm_core.addresses import CACHE_VARIABLE, cache_folder
from pmlm_core.corpus.cache_room import COMING, KEPT, LIMIT_VARIABLE, is_named, limit, reserve, touch
from pmlm_core.corpus.manifest import ShardEntry
from pmlm_core.errors import DataError

__all__ = ["CACHE_VARIABLE", "LIMIT_VARIABLE", "Bytes", "batch_of", "digest_of", "fetch", "limit", "touch", "whole"]

_CHUNK = 8 << 20
_ATTEMPTS = 2  # at bytes that arrive wrong
_trusted: dict[str, tuple[int, int]] = {}  # path -> inode and time of change when its digest was right


@dataclass(frozen=True)
class Bytes:
    """Bytes `offset` to `offset + size` of a remote file and their SHA-256 (hex); `name` tells users what they are."""

    uri: str
    offset: int
    size: int
    sha256: str
    suffix: str
    name: str


def whole(uri: str, entry: ShardEntry) -> Bytes:
    """All bytes of a shard."""
    return Bytes(uri, 0, entry.bytes, entry.sha256, KEPT[0], uri)


def batch_of(uri: str, entry: ShardEntry, number: int) -> Bytes:
    """The part of a shard that holds its record batch of this number."""
    offset, size = sum(entry.part_bytes[:number]), entry.part_bytes[number]
    return Bytes(uri, offset, size, entry.part_sha256[number], KEPT[1], f"{uri}, record batch {number},")


def fetch(wanted: Bytes) -> str:
    """Path of a local copy; one process of a machine fetches it, others wait for that.

    A copy whose digest is wrong is fetched again.

    Raises:
        DataError: what lies there is missing or another, or the disk has no room for it.
        ConfigError: `PMLM_CACHE_GB` is no number, or below the size of what is wanted.
        OSError: the object store failed again and again.
    """
    folder = cache_folder("blocks")
    target = folder / f"{wanted.sha256}{wanted.suffix}"
    try:
        try:
            _fetch_into(folder, target, wanted)
        except FileNotFoundError:  # somebody has emptied the cache meanwhile
            _fetch_into(folder, target, wanted)
    except storage.StoreError:
        raise
    except OSError as error:
        if storage.is_store_error(error):
            raise
        raise DataError(
            f"{wanted.name} cannot be fetched into {folder}: {error}; make room there, or set {CACHE_VARIABLE} to a "
            "folder on a larger disk"
        ) from None
    touch(target)
    return str(target)


def _fetch_into(folder: Path, target: Path, wanted: Bytes) -> None:
    if _is_good(target, wanted):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f"{wanted.sha256}{COMING}") as coming:
        if not _is_good(target, wanted):  # another process may have fetched it while this one waited
            reserve(folder, coming, wanted.size, wanted.uri)
            _download(wanted, coming)
            os.replace(coming.name, target)
            _trust(target)


def digest_of(path: str | Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_good(target: Path, wanted: Bytes) -> bool:
    try:
        state = target.stat()
        if state.st_size != wanted.size:
            return False
        if _trusted.get(str(target)) == (state.st_ino, state.st_mtime_ns):
            return True
        if digest_of(target) != wanted.sha256:
            return False
    except FileNotFoundError:
        return False
    _trusted[str(target)] = state.st_ino, state.st_mtime_ns
    return True


def _trust(target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # evicted already
        state = target.stat()
        _trusted[str(target)] = state.st_ino, state.st_mtime_ns


def _download(wanted: Bytes, coming: BinaryIO) -> None:
    for _ in range(_ATTEMPTS):
        digest = sha256()
        coming.seek(0)
        for offset in range(0, wanted.size, _CHUNK):
            chunk = _read(wanted, offset)
            digest.update(chunk)
            coming.write(chunk)
        coming.flush()
        if digest.hexdigest() == wanted.sha256:
            return
    raise DataError(
        f"{wanted.name} is not what the manifest says (its digest differs); delete {wanted.uri} and run "
        "`pmlm preprocess` again (it does only what is missing)."
    )


def _read(wanted: Bytes, offset: int) -> bytes:
    try:
        return storage.read_range(wanted.uri, wanted.offset + offset, min(_CHUNK, wanted.size - offset))
    except FileNotFoundError:
        raise DataError(
            f"{wanted.uri}: the manifest names this shard, but it is missing; run `pmlm preprocess` again."
        ) from None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """Open `path`, empty, for one thread of all processes at a time; it is removed at the end unless it was renamed."""
    file = _open_locked(path)
    try:
        file.truncate(0)
        yield file
    finally:
        if is_named(file):
            with contextlib.suppress(FileNotFoundError):  # the whole folder goes at this moment
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
            return open(path.with_suffix(f".{os.getpid()}.{threading.get_ident()}{COMING}"), "w+b")
        if is_named(file):
            return file
        file.close()  # who held it has renamed or removed it
