"""Local folders and object stores behind one face: a path or URI, read and written whole or not at all.

Everything goes through `pyarrow.fs`. A write to a local path goes to a temporary name beside the target and is renamed.
An object appears under its name when all of it was sent, in parts beside each other if it is large. pyarrow cannot
abandon one: closing a stream midway completes a short object, unless a part failed in the background. So nothing but
that may end a write early.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from pmlm_core.addresses import SCHEMES, absolute, is_remote, join, normalise, split_query, with_query
from pmlm_core.durable import force
from pmlm_core.errors import DataError
from pmlm_core.stores import (
    StoreError,
    insisted,
    is_store_error,
    is_transport_error,
    opened,
    patient_for,
    resolve,
)

__all__ = [
    "SCHEMES",
    "StoreError",
    "absolute",
    "is_remote",
    "is_store_error",
    "is_transport_error",
    "join",
    "normalise",
    "patient_for",
    "resolve",
    "split_query",
    "with_query",
]

_PART = 8 << 20
_WINDOW = 80 << 20  # eight of pyarrow's parts, one for each of its threads
_THREADS = 8


def exists(uri: str) -> bool:
    """Whether a file or folder of that name is there."""
    return _info(uri).type != pafs.FileType.NotFound


def size(uri: str) -> int | None:
    """Bytes of the file `uri`, or None when there is no such file."""
    info = _info(uri)
    return int(info.size) if info.type == pafs.FileType.File else None


def changed_at(uri: str) -> int | None:
    """When the file `uri` was written, in nanoseconds since 1970, or None when there is no such file."""
    return _info(uri).mtime_ns


def _info(uri: str) -> pafs.FileInfo:
    def ask() -> pafs.FileInfo:
        file_system, path = resolve(uri)
        return file_system.get_file_info(path)

    return insisted(uri, "looked up", ask)


def read_bytes(uri: str) -> bytes:
    """Read a whole (small) file.

    Raises:
        DataError: there is no such file, or it cannot be read.
        OSError: the object store failed again and again.
    """

    def read() -> bytes:
        file_system, path = resolve(uri)
        with file_system.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())

    try:
        return insisted(uri, "read", read)
    except StoreError:
        raise
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error}") from None


def read_if_there(uri: str) -> bytes | None:
    """Read a whole (small) file; None if there is none.

    Raises:
        DataError: it cannot be read.
        OSError: the object store failed again and again.
    """
    try:
        return read_bytes(uri)
    except DataError:
        if exists(uri):
            raise
        return None


def read_range(uri: str, offset: int, nbytes: int) -> bytes:
    """Read a part of a remote file that never changes; fewer bytes come back where it ends before.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the object store failed again and again.
    """
    return insisted(uri, "read", lambda: bytes(opened(uri).read_at(nbytes, offset)))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole (small) file, all of it or nothing, making the folders above it.

    Raises:
        OSError: the disk or the object store failed; what lay under the name before still does.
    """
    if is_remote(uri):
        _put(uri, pa.py_buffer(data))
        return
    with _draft_of(uri) as draft:
        draft.write_bytes(data)


def write_lines(uri: str, lines: Iterable[str]) -> None:
    """Write lines of text, all or none, holding one at a time."""
    if not is_remote(uri):
        with _draft_of(uri) as draft, open(draft, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(line + "\n" for line in lines)
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", prefix="pmlm-", suffix=".tmp") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        copy_file(file.name, uri)


def publish(local: str | Path, uri: str) -> None:
    """Move a finished local file to its final place in one step; local targets must lie on the same disk."""
    if not is_remote(uri):
        Path(absolute(uri)).parent.mkdir(parents=True, exist_ok=True)
        os.replace(local, absolute(uri))
        return
    copy_file(local, uri)
    os.unlink(local)


def copy_file(local: str | Path, uri: str) -> None:
    """Copy a local file of any size to `uri`, all of it or nothing, making the folders above it.

    The file must not be cut short meanwhile: a large one is mapped.

    Raises:
        OSError: the disk or the object store failed; what lay under the name before still does.
    """
    if not is_remote(uri):
        with _draft_of(uri) as draft, open(local, "rb") as source, open(draft, "wb") as sink:
            shutil.copyfileobj(source, sink, _PART)
    elif os.path.getsize(local) <= _PART:
        _put(uri, pa.py_buffer(Path(local).read_bytes()))
    else:
        with pa.memory_map(str(local)) as source:
            _put(uri, source.read_buffer())


def _put(uri: str, content: pa.Buffer) -> None:
    def put() -> None:
        file_system, path = resolve(uri)
        with file_system.open_output_stream(path, compression=None) as stream:
            for offset in range(0, content.size, _WINDOW):
                stream.write(content.slice(offset, min(_WINDOW, content.size - offset)))
                stream.flush()  # waits: what is under way is held in memory

    # In a thread of its own, which no Ctrl-C reaches: all that can end the block early is a part that failed.
    with ThreadPoolExecutor(1) as undisturbed:
        insisted(uri, "written", lambda: undisturbed.submit(copy_context().run, put).result())


def fetch_file(uri: str, local: str | Path) -> None:
    """Copy the file `uri`, of any size, to a local path and force it to disk.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the disk or the object store failed.
    """
    if not is_remote(uri):
        with open(absolute(uri), "rb") as source, open(local, "wb") as sink:
            shutil.copyfileobj(source, sink, _PART)
            sink.flush()
            os.fsync(sink.fileno())
        return
    file_system, path = resolve(uri)
    # Not `opened`: it may have been replaced.
    remote: pa.NativeFile = insisted(uri, "read", lambda: file_system.open_input_file(path))
    with open(local, "wb") as sink, ThreadPoolExecutor(_THREADS) as pool:

        def fetch(offset: int) -> None:
            part = memoryview(insisted(uri, "read", lambda: remote.read_at(_PART, offset)))
            while part:  # on a disk that fills up, less than all is written before the error comes
                written = os.pwrite(sink.fileno(), part, offset)
                part, offset = part[written:], offset + written

        for _ in pool.map(fetch, range(0, remote.size(), _PART)):
            pass
        os.fsync(sink.fileno())


def remove_folder(uri: str) -> None:
    """Remove a folder and all that is in it; nothing if it is not there."""

    def remove() -> None:
        file_system, path = resolve(uri)
        if file_system.get_file_info(path).type == pafs.FileType.Directory:
            with suppress(FileNotFoundError):  # Google's: the files are gone then, the folder was no object of its own
                file_system.delete_dir(path)

    insisted(uri, "removed", remove)


def remove_file(uri: str) -> None:
    """Remove a file; nothing if it is not there."""

    def remove() -> None:
        file_system, path = resolve(uri)
        if file_system.get_file_info(path).type == pafs.FileType.File:
            file_system.delete_file(path)

    insisted(uri, "removed", remove)


def folders_in(uri: str) -> Iterator[str]:
    """Names of the folders directly in a folder, sorted; nothing if there is no such folder."""
    if not uri.startswith(("gs:", "gcs:")):
        yield from sorted(info.base_name for info in _listed(uri) if info.type == pafs.FileType.Directory)
        return
    # Of Google's, pyarrow lists no folder that is there by the names of its files alone.
    inside = len(resolve(uri)[1]) + 1
    below = (info.path[inside:].rstrip("/").split("/") for info in _listed(uri, recursive=True))
    yield from sorted({parts[0] for parts in below if len(parts) > 1})


def names_in(uri: str) -> Iterator[str]:
    """Names of the files directly in a folder, sorted; nothing if there is no such folder."""
    yield from sorted(info.base_name for info in _listed(uri) if info.type == pafs.FileType.File)


def files_below(uri: str) -> dict[str, int]:
    """Bytes of all files in a folder and below it, by their names seen from there, sorted; empty if there is none."""
    inside = len(resolve(uri)[1]) + 1
    found = _listed(uri, recursive=True)
    return dict(sorted((info.path[inside:], info.size) for info in found if info.type == pafs.FileType.File))


def _listed(uri: str, recursive: bool = False) -> list[pafs.FileInfo]:
    def ask() -> list[pafs.FileInfo]:
        file_system, path = resolve(uri)
        return file_system.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=recursive))

    return insisted(uri, "listed", ask)


@contextmanager
def _draft_of(uri: str) -> Iterator[Path]:
    """A temporary name beside a local target, which becomes its name when the block has ended well."""
    target = Path(absolute(uri))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield draft
        force(draft)
        os.replace(draft, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a write does not say where
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)
