"""Addresses of files: local paths and URIs of object stores, taken apart and put together."""

import os
import re
from pathlib import Path

SCHEMES = ("s3", "gs", "gcs")
"""URL schemes of the object stores that are supported."""

CACHE_VARIABLE = "PMLM_CACHE"
"""Names the folder of this machine for what can be fetched or made again; by default ~/.cache/pmlm."""

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


def path_in(uri: str) -> str:
    """The path of an address whose first part names a machine, not a bucket.

    >>> path_in("driver://keeper-1:abc/runs/a")
    '/runs/a'
    """
    return "/" + uri.partition("://")[2].partition("/")[2]


def cache_folder(name: str) -> Path:
    """A folder of this machine's cache."""
    return Path(absolute(os.environ.get(CACHE_VARIABLE) or "~/.cache/pmlm")) / name
