"""The driver's files under addresses, so that whatever reads and writes object stores reads and writes them too.

driver://KEEPER:HOLDER/absolute/path      the keeper's name in Ray, and who asks (see `Keeper.hold`)
"""

import io
import os
import uuid
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pyarrow.fs as pafs
from fsspec import AbstractFileSystem

from pipelines.handover.keeper import SUPERSEDED
from pmlm_core.stores import StoreError, insisted, serve

SCHEME, NAMESPACE = "driver", "pmlm"
_PART, _READ_AHEAD = 8 << 20, 1 << 20
_ANSWER_S = 60.0


def address(keeper: str, holder: str, path: str | os.PathLike[str]) -> str:
    """The address of the driver's file or folder `path`.

    >>> address("keeper-1", "abc", "/runs/a")
    'driver://keeper-1:abc/runs/a'
    """
    return f"{SCHEME}://{keeper}:{holder}{os.fspath(path)}"


def address_like(other: str, path: str) -> str:
    """The address of another path of the same machine, for the same process."""
    asked = kept(other)
    return address(asked.keeper, asked.holder, path)


class Kept:
    """One process's view of a keeper."""

    def __init__(self, keeper: str, holder: str) -> None:
        self.keeper, self.holder = keeper, holder

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call the keeper.

        Raises:
            StoreError: another process holds the folder now.
            ConnectionError: no answer.
            OSError: what it met.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            value, failure = ray.get(getattr(_actor(self.keeper), method).remote(*arguments), timeout=_ANSWER_S)
        except RayTaskError as error:
            raise StoreError(f"the machine of the command met {error.cause!r} at {method} {arguments[0]}") from error
        except (RayError, ValueError) as error:  # ValueError: no actor of that name any more
            _actor.cache_clear()
            text = " ".join(str(error).split())[:200]
            raise ConnectionError(f"the machine of the command does not answer ({text})") from error
        if failure is None:
            return value
        number, words = failure
        if number == SUPERSEDED:
            raise StoreError(words)
        raise OSError(number, words, arguments[0])

    def insist(self, method: str, *arguments: Any) -> Any:
        """`ask`, again and again while there is no answer, for as long as a store is waited for."""
        there = address(self.keeper, self.holder, arguments[0])
        return insisted(there, "changed", lambda: self.ask(method, *arguments))

    def hold(self, path: str, *, at_once: bool) -> bool:
        """See `Keeper.hold`."""
        return self.insist("hold", path, self.holder, at_once)

    def renew(self, path: str) -> bool:
        """See `Keeper.renew`."""
        return self.ask("renew", path, self.holder)

    def let_go(self, path: str) -> None:
        """See `Keeper.let_go`."""
        self.ask("let_go", path, self.holder)

    def rename(self, path: str, final: str) -> None:
        """See `Keeper.rename`."""
        self.insist("rename", path, final, self.holder)


def kept(uri: str) -> Kept:
    """What an address asks."""
    keeper, _, holder = uri.partition("://")[2].partition("/")[0].partition(":")
    return Kept(keeper, holder)


@lru_cache(maxsize=8)
def _actor(name: str) -> Any:
    import ray

    return ray.get_actor(name, namespace=NAMESPACE)


class _Files(AbstractFileSystem):  # type: ignore[misc]
    """What fsspec wants of a file system, and pyarrow of fsspec."""

    cachable = False

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self._kept = kept

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        found = self._kept.ask("info", path)
        if found is None:
            raise FileNotFoundError(2, "no such file or folder", path)
        return _described(path, *found)

    def isfile(self, path: str) -> bool:
        """Unlike fsspec's, an error that is none of "not there" is not taken for that."""
        return bool(self.info(path)["type"] == "file")

    def isdir(self, path: str) -> bool:
        try:
            return bool(self.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False

    def exists(self, path: str, **_: Any) -> bool:
        return self._kept.ask("info", path) is not None

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        entries = [_described(f"{path.rstrip('/')}/{name}", *facts) for name, *facts in self._kept.ask("listed", path)]
        return entries if detail else [entry["name"] for entry in entries]

    def walk(self, path: str, maxdepth: int | None = None, topdown: bool = True, **more: Any) -> Any:
        """Unlike fsspec's, a folder that cannot be listed is not taken for an empty one."""
        return super().walk(path, maxdepth=maxdepth, topdown=topdown, **{"on_error": "raise", **more})

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing: folders are made with the files in them."""

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        self._kept.ask("remove", path, self._kept.holder)

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return io.BufferedReader(_Reading(self._kept, path, self.info(path)["size"]), _READ_AHEAD)
        return _Writing(self._kept, path)


def _described(path: str, is_folder: bool, size: int, changed: float) -> dict[str, Any]:
    return {
        "name": path,
        "type": "directory" if is_folder else "file",
        "size": 0 if is_folder else size,
        "mtime": changed,
    }


class _Reading(io.RawIOBase):
    """A file from front to back, or from wherever it is put to."""

    def __init__(self, kept: Kept, path: str, size: int) -> None:
        self._kept, self._path, self._size, self._at = kept, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._kept.ask("read", self._path, self._at, min(len(buffer), _PART))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Writing(io.RawIOBase):
    """A new file, there under its name when it is closed."""

    def __init__(self, kept: Kept, path: str) -> None:
        self._kept, self._path, self._draft = kept, path, uuid.uuid4().hex[:8]
        self._at, self._held, self._failed = 0, bytearray(), False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += memoryview(data).cast("B")
        while len(self._held) >= _PART:
            self._send(bytes(self._held[:_PART]), last=False)
            del self._held[:_PART]
        return len(data)

    def close(self) -> None:
        if self.closed:
            return
        try:
            if not self._failed:
                self._send(bytes(self._held), last=True)
        finally:
            super().close()
            if self._failed:
                with suppress(OSError):
                    self._kept.ask("discard", self._path, self._draft)

    def _send(self, data: bytes, last: bool) -> None:
        self._failed = True  # a file that lacks a part must not get its name
        self._kept.ask("write", self._path, self._draft, self._at, data, last, self._kept.holder)
        self._failed = False
        self._at += len(data)


def _open(rest: str) -> tuple[pafs.FileSystem, str]:
    place, _, path = rest.partition("/")
    return _file_system(place), "/" + path.rstrip("/")


@lru_cache(maxsize=8)
def _file_system(place: str) -> pafs.FileSystem:
    return pafs.PyFileSystem(pafs.FSSpecHandler(_Files(kept(f"{SCHEME}://{place}/"))))


serve(SCHEME, _open)
