"""Object stores: how they are opened, and how long one that fails is waited for.

`PMLM_STORE_SECONDS` (180 by default) bounds that wait. A request that fails for a passing reason (no connection, no
answer, 429, 5xx, "slow down") is repeated after growing waits of random length: by the store's own client, and around
it here, where whole operations are repeated.
"""

import math
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from pmlm_core.addresses import SCHEMES, absolute, is_remote, split_query, with_query
from pmlm_core.errors import ConfigError, DataError

PATIENCE_VARIABLE = "PMLM_STORE_SECONDS"
T = TypeVar("T")
_PATIENCE = 180.0
_LONGEST_WAIT = 16.0
_SILENCE = 20.0  # seconds without a byte until a request counts as failed; the client's own 3 are few for a busy store
_S3_OPTIONS = {"region", "scheme", "endpoint_override", "tls_ca_file_path"}
_S3_SWITCHES = {"allow_bucket_creation", "allow_bucket_deletion", "force_virtual_addressing"}
_MISSING = re.compile(r"AWS Error (NO_SUCH_KEY|RESOURCE_NOT_FOUND) during GetObject")
_REFUSED = re.compile(
    r"AWS Error (ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_(ACCESS|CLIENT|SIG)\w+|SIGNATURE_\w+|UNRECOGNIZED_CLIENT)"
    r"|HTTP status 4(?!08|29)\d\d|(PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|FAILED_PRECONDITION|NOT_FOUND)"
)
_hurry: ContextVar[float | None] = ContextVar("pmlm_store_seconds", default=None)


class StoreError(OSError):
    """A store went on failing, or refused; asking again at once would not help."""


def patience() -> float:
    """Seconds that a failing store is waited for.

    Raises:
        ConfigError: the variable holds no number of seconds.
    """
    if (hurry := _hurry.get()) is not None:
        return hurry
    text = os.environ.get(PATIENCE_VARIABLE, "").strip()
    try:
        seconds = float(text or _PATIENCE)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{PATIENCE_VARIABLE} is '{text}'; it says how many seconds a store is waited for, e.g. 300")
    return seconds


@contextmanager
def patient_for(seconds: float) -> Iterator[None]:
    """Another patience inside the block, in this thread."""
    token = _hurry.set(seconds)
    try:
        yield
    finally:
        _hurry.reset(token)


_served: dict[str, Callable[[str], tuple[pafs.FileSystem, str]]] = {}


def serve(scheme: str, opened: Callable[[str], tuple[pafs.FileSystem, str]]) -> None:
    """Let addresses of a scheme of the program's own be used like a store's.

    Args:
        opened: what follows "scheme://" -> file system and the path inside it.
    """
    _served[scheme] = opened


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Give the file system of `uri` and the path inside it.

    An S3 endpoint other than Amazon's comes from `AWS_ENDPOINT_URL` or from `?endpoint_override=host:port&scheme=http`.

    Raises:
        ConfigError: the scheme is not one of `SCHEMES`, or an option of the query is not known.
    """
    if not is_remote(uri):
        return pafs.LocalFileSystem(), absolute(uri)
    scheme, _, rest = uri.partition("://")
    if scheme in _served:
        return _served[scheme](rest)
    if scheme not in SCHEMES:
        raise ConfigError(f"{uri}: storage '{scheme}://' is not supported; use a local path, s3:// or gs://")
    path, query = split_query(rest)
    bucket = path.split("/", 1)[0]
    try:
        file_system = _file_system(scheme, bucket, query, _endpoint(), patience(), os.getpid())
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError(f"{scheme}://{bucket}: the object store cannot be opened: {error}") from None
    except OSError as error:  # it may be away for a while
        raise OSError(f"{scheme}://{bucket}: the object store cannot be opened: {error}") from error
    return file_system, path.removeprefix("anonymous@").rstrip("/") if scheme != "s3" else path.rstrip("/")


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@lru_cache(maxsize=64)
def _file_system(scheme: str, bucket: str, query: str, endpoint: str, patience_s: float, _pid: int) -> pafs.FileSystem:
    options = dict(parse_qsl(query))
    if scheme != "s3":
        options.setdefault("retry_limit_seconds", str(max(1, round(patience_s))))  # else a quarter of an hour
        return pafs.FileSystem.from_uri(with_query(f"gs://{bucket}", urlencode(options)))[0]
    if unknown := options.keys() - _S3_OPTIONS - _S3_SWITCHES:
        raise ConfigError(f"s3://{bucket}: no option {sorted(unknown)} in an address; known: {sorted(_S3_OPTIONS)}")
    given: dict[str, object] = {k: v == "true" if k in _S3_SWITCHES else v for k, v in options.items()}
    if endpoint and "endpoint_override" not in given:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        given |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    if "region" not in given:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        # Amazon is asked for the region of a bucket; no other server can be.
        given["region"] = region or "us-east-1" if "endpoint_override" in given else pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(
        **given,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_attempts(patience_s)),
        request_timeout=_SILENCE,
        connect_timeout=min(10.0, max(1.0, patience_s)),
        allow_delayed_open=True,  # what fits one request is sent as one, which shows all of an object or none
        background_writes=True,  # a part that fails in the foreground does not keep `close` from completing the rest
    )


def _attempts(seconds: float) -> int:
    """Attempts of the client at a request: its waits, half a second and then twice that each time, fill `seconds`."""
    return round(math.log2(1 + seconds)) + 1


def opened(uri: str) -> pa.NativeFile:
    """A remote file for `read_at`, kept open: opening one asks the store for its size."""
    return _opened(uri, _endpoint(), patience(), os.getpid())


@lru_cache(maxsize=1024)
def _opened(uri: str, _endpoint: str, _patience: float, _pid: int) -> pa.NativeFile:
    file_system, path = resolve(uri)
    return file_system.open_input_file(path)


def is_transport_error(error: OSError) -> bool:
    """Tell a disk or network that failed (try again) from file content that cannot be decoded (quarantine it).

    pyarrow raises `OSError` for both; only the first carries an error number or the store's name.
    """
    return error.errno is not None or "AWS Error" in str(error) or "google::cloud" in str(error)


def is_store_error(error: OSError) -> bool:
    """Tell an object store that failed from the local disk, whose errors carry a number (so does a missing object)."""
    return error.errno is None or isinstance(error, (ConnectionError, TimeoutError))


def insisted(uri: str, done: str, work: Callable[[], T]) -> T:
    """Call `work` again, after longer and longer waits, while the store of `uri` fails; a local path has one attempt.

    Args:
        uri: what `work` is about; `done`: what happens to it ("read", "written"), for messages.
        work: may be repeated.

    Raises:
        StoreError: it still failed when `patience` was over, or was refused.
        OSError: what `work` raised, if it was not the store that failed (a missing object, the local disk).
    """
    if not is_remote(uri):
        return work()
    begun, attempts = time.monotonic(), 0
    while True:
        attempts += 1
        try:
            return work()
        except StoreError:
            raise
        except OSError as error:
            if not is_store_error(error):
                raise
            if _MISSING.search(str(error)):  # told so only where the file was opened before it went
                raise FileNotFoundError(2, "no such object", uri) from None
            if _REFUSED.search(str(error)):
                raise StoreError(
                    f"{uri} cannot be {done}: {error}; the store refuses, see whether the bucket exists and whether "
                    "your credentials are valid and allow that"
                ) from error
            wait = random.uniform(0.5, 1) * min(2.0 ** (attempts - 1), _LONGEST_WAIT)
            spent = time.monotonic() - begun
            if spent + wait > patience():
                raise StoreError(
                    f"{uri} cannot be {done}: {error} (tried {attempts} times in {spent:.0f} s, each with repeated "
                    f"requests; {PATIENCE_VARIABLE}, now {patience():g}, says how many seconds a store is waited for)"
                ) from error
            time.sleep(wait)
