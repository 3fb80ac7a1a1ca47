"""Local folders and object stores behind one face: a path or URI, read and written whole or not at all.

Everything goes through `pyarrow.fs`. A write to a local path goes to a temporary name beside the target and is renamed;
an object store shows an object once it was put, but one whose writer met an error midway may be short: shards are
therefore counted only with a ledger row, which is written after them and tells their length.
"""

import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow.fs as pafs

from pmlm_core.errors import ConfigError, DataError

SCHEMES = ("s3", "gs", "gcs")
T = TypeVar("T")
_RETRY_SECONDS = (1.0, 4.0, 16.0)  # between attempts; pyarrow makes some of its own at each
_QUERY = re.compile(r"\?\w+=[^&/?]*(&\w+=[^&/?]*)*$")


def is_remote(uri: str) -> bool:
    """Whether `uri` names an object store rather than a local path."""
    return "://" in uri and not uri.startswith("file://")


def split_query(uri: str) -> tuple[str, str]:
    """Divide an address into its path and its query (without the `?`); a `?` that is a wildcard stays in the path.

    >>> split_query("s3://b/x?scheme=http&region=eu"), split_query("s3://b/part-?.jsonl")
    (('s3://b/x', 'scheme=http&region=eu'), ('s3://b/part-?.jsonl', ''))
    """
    match = _QUERY.search(uri)
    return (uri[: match.start()], match.group()[1:]) if match else (uri, "")


def with_query(path: str, query: str) -> str:
    """Undo `split_query`."""
    return f"{path}?{query}" if query else path


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Give the file system of `uri` and the path inside it.

    An S3 endpoint other than Amazon's comes from `AWS_ENDPOINT_URL` or from `?endpoint_override=host:port&scheme=http`.

    Raises:
        ConfigError: the scheme is not one of `SCHEMES`.
    """
    if not is_remote(uri):
        return pafs.LocalFileSystem(), absolute(uri)
    scheme, _, rest = uri.partition("://")
    if scheme not in SCHEMES:
        raise ConfigError(f"{uri}: storage '{scheme}://' is not supported; use a local path, s3:// or gs://")
    path, query = split_query(rest)
    return _file_system(scheme, path.split("/", 1)[0], query, os.getpid()), path.rstrip("/")


@lru_cache(maxsize=64)
def _file_system(scheme: str, bucket: str, query: str, _pid: int) -> pafs.FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    try:
        if scheme == "s3" and endpoint and "endpoint_override" not in dict(parse_qsl(query)):
            # `from_uri` would ask Amazon for the bucket's region even when an endpoint is set.
            parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            return pafs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, region=region)
        return pafs.FileSystem.from_uri(with_query(f"{scheme}://{bucket}", query))[0]
    except ValueError as error:
        raise DataError(f"{scheme}://{bucket}: the object store cannot be opened: {error}") from None
    except OSError as error:  # it may be away for a while
        raise OSError(f"{scheme}://{bucket}: the object store cannot be opened: {error}") from error


def absolute(path: str) -> str:
    """Expand `~` and make a local path absolute (worker processes have other working directories)."""
    return os.path.abspath(os.path.expanduser(path.removeprefix("file://")))


def normalise(uri: str) -> str:
    """Give the one spelling of `uri` that reports and ledgers use."""
    if not is_remote(uri):
        return absolute(uri)
    path, query = split_query(uri)
    return with_query(path.rstrip("/"), query)


def join(uri: str, *names: str) -> str:
    """Append path segments to a path or URI, keeping a URI's query where it belongs.

    >>> join("s3://bucket/blocks?scheme=http", "shards", "a.arrow")
    's3://bucket/blocks/shards/a.arrow?scheme=http'
    """
    if not is_remote(uri):
        return os.path.join(uri, *names)
    path, query = split_query(uri)
    return with_query("/".join([path.rstrip("/"), *names]), query)


def exists(uri: str) -> bool:
    """Whether a file or folder of that name is there."""
    file_system, path = resolve(uri)
    return file_system.get_file_info(path).type != pafs.FileType.NotFound


def size(uri: str) -> int | None:
    """Bytes of the file `uri`, or None when there is no such file."""
    file_system, path = resolve(uri)
    info = file_system.get_file_info(path)
    return int(info.size) if info.type == pafs.FileType.File else None


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
        return retried(read) if is_remote(uri) else read()
    except OSError as error:
        if is_remote(uri) and is_store_error(error):
            raise OSError(f"{uri} cannot be read: {error}") from error
        raise DataError(f"{uri} cannot be read: {error}") from None


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole (small) file atomically, making the folders above it."""
    if is_remote(uri):
        file_system, path = resolve(uri)
        with file_system.open_output_stream(path, compression=None) as stream:
            stream.write(data)
        return
    target = Path(absolute(uri))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_lines(uri: str, lines: Iterable[str]) -> None:
    """Write lines of text atomically, holding one at a time."""
    folder = tempfile.gettempdir()
    if not is_remote(uri):
        folder = os.path.dirname(absolute(uri))
        os.makedirs(folder, exist_ok=True)
    temporary = Path(folder, f".{os.path.basename(split_query(uri)[0])}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, uri)
    finally:
        temporary.unlink(missing_ok=True)


def publish(local: str | Path, uri: str) -> None:
    """Move a finished local file to its final place in one step; local targets must lie on the same disk."""
    if not is_remote(uri):
        Path(absolute(uri)).parent.mkdir(parents=True, exist_ok=True)
        os.replace(local, absolute(uri))
        return
    file_system, path = resolve(uri)
    with open(local, "rb") as source, file_system.open_output_stream(path, compression=None) as sink:
        shutil.copyfileobj(source, sink, 8 << 20)
    os.unlink(local)


def copy_folder(source: str | Path, uri: str) -> None:
    """Copy the files of a local folder (not its sub-folders) to `uri`, each whole or not at all."""
    for file in sorted(Path(source).iterdir()):
        if file.is_file():
            write_bytes(join(uri, file.name), file.read_bytes())


def copy_file(local: str | Path, uri: str) -> None:
    """Copy a local file of any size to `uri`, making the folders above it; a local target is whole or not there."""
    if is_remote(uri):
        file_system, path = resolve(uri)
        with open(local, "rb") as source, file_system.open_output_stream(path, compression=None) as sink:
            shutil.copyfileobj(source, sink, 8 << 20)
        return
    target = Path(absolute(uri))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(local, "rb") as source, open(temporary, "wb") as sink:
            shutil.copyfileobj(source, sink, 8 << 20)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def fetch_file(uri: str, local: str | Path) -> None:
    """Copy the file `uri`, of any size, to a local path and force it to disk; OSError if that fails midway."""
    file_system, path = resolve(uri)
    with file_system.open_input_stream(path, compression=None) as source, open(local, "wb") as sink:
        shutil.copyfileobj(source, sink, 8 << 20)
        sink.flush()
        os.fsync(sink.fileno())


def remove_folder(uri: str) -> None:
    """Remove a folder and all that is in it; nothing if it is not there."""
    file_system, path = resolve(uri)
    if file_system.get_file_info(path).type == pafs.FileType.Directory:
        file_system.delete_dir(path)


def remove_file(uri: str) -> None:
    """Remove a file; nothing if it is not there."""
    file_system, path = resolve(uri)
    if file_system.get_file_info(path).type == pafs.FileType.File:
        file_system.delete_file(path)


def folders_in(uri: str) -> Iterator[str]:
    """Names of the folders directly in a folder, sorted; nothing if there is no such folder."""
    file_system, path = resolve(uri)
    infos = file_system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    yield from sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def names_in(uri: str) -> Iterator[str]:
    """Names of the files directly in a folder, sorted; nothing if there is no such folder."""
    file_system, path = resolve(uri)
    infos = file_system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    yield from sorted(info.base_name for info in infos if info.type == pafs.FileType.File)


def is_transport_error(error: OSError) -> bool:
    """Tell a disk or network that failed (try again) from file content that cannot be decoded (quarantine it).

    pyarrow raises `OSError` for both; only the first carries an error number or the store's name.
    """
    return error.errno is not None or "AWS Error" in str(error) or "google::cloud" in str(error)


def is_store_error(error: OSError) -> bool:
    """Tell an object store that failed from the local disk, whose errors carry a number (so does a missing object)."""
    return error.errno is None or isinstance(error, (ConnectionError, TimeoutError))


def retried(work: Callable[[], T]) -> T:
    """Call `work` again, after longer and longer waits, as long as the object store fails.

    Raises:
        OSError: it still failed at the last attempt.
    """
    for seconds in _RETRY_SECONDS:
        try:
            return work()
        except OSError as error:
            if not is_store_error(error):
                raise
            time.sleep(seconds)
    return work()
