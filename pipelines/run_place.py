"""Where a run may lie, as far as its options alone can tell; imports nothing heavy, for `--help`.

A run whose output_dir is an address is worked on in a folder of this machine's cache, and copied there: to every other
part of the program it is one with an output_dir and an upload_dir.
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pmlm_core.addresses import SCHEMES, absolute, cache_folder, is_remote, join, normalise, split_query, with_query
from pmlm_core.errors import ConfigError

T = TypeVar("T")


def check_run_place(output_dir: str, run_name: str | None, upload_dir: str | None = None) -> None:
    """Refuse a place that a run cannot have; nothing is looked at.

    Raises:
        ConfigError: output_dir is no folder, run_name not the name of one, or upload_dir no place besides.
    """
    if is_remote(output_dir):
        check_address("output_dir", output_dir)
        if upload_dir is not None:
            raise ConfigError(f"output_dir {output_dir} is in a store already: leave upload_dir out")
    if run_name is not None and (not run_name or run_name != run_name.strip(". ") or "/" in run_name):
        raise ConfigError(f"run_name '{run_name}' must be a plain folder name, without '/'")
    if upload_dir is None:
        return
    if is_remote(upload_dir):
        check_address("upload_dir", upload_dir)
        return
    above, place = absolute(output_dir), absolute(upload_dir)
    if os.path.commonpath([above, place]) == above:
        what = "output_dir" if above == place else f"inside output_dir {output_dir}, and would be lost with it"
        raise ConfigError(f"upload_dir is {what}: give another place, or leave it out")


def check_address(option: str, uri: str) -> None:
    """Refuse an address of an unknown kind or without a bucket.

    Raises:
        ConfigError: it is one.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in SCHEMES:
        raise ConfigError(f"{option} {uri}: storage '{scheme}://' is not supported; use a local path, s3:// or gs://")
    if not rest.split("?")[0].partition("/")[0]:
        raise ConfigError(f"{option} {uri} names no bucket: give one, as {scheme}://bucket/runs")


def worked_on_here(config: T) -> T:
    """The configuration with a folder of this machine for its output_dir, and an address in its place as upload_dir."""
    given: Any = config
    if not is_remote(given.output_dir):
        return config
    address = normalise(given.output_dir)
    return replace(given, output_dir=str(work_folder(address)), upload_dir=address)


def work_folder(address: str) -> Path:
    """Where runs of which `address` is the output_dir are worked on, on this machine."""
    return cache_folder("runs") / hashlib.sha256(normalise(address).encode()).hexdigest()[:12]


def lies_in_store(config: Any) -> bool:
    """Whether what is worked on here is to lie in a store alone."""
    return _in_store(config.output_dir, config.upload_dir)


def _in_store(output_dir: str, upload_dir: str | None) -> bool:
    return upload_dir is not None and absolute(output_dir) == str(work_folder(upload_dir))


def named(config: Any, path: str | Path) -> str:
    """Where the user finds something of a run: its address, or the path itself."""
    return named_by(config.output_dir, config.upload_dir, path)


def named_by(output_dir: str, upload_dir: str | None, path: str | Path) -> str:
    """The same of a run of which these two options are known."""
    if upload_dir is None or not _in_store(output_dir, upload_dir):
        return str(path)
    return join(upload_dir, *Path(path).relative_to(absolute(output_dir)).parts)


def folder_of(place: str) -> str:
    """A run's folder on this machine, by its path or its address; an address that was not worked on here stays."""
    if is_remote(place):
        path, query = split_query(normalise(place))
        above, _, name = path.rpartition("/")
        for folder in (work_folder(place), work_folder(with_query(above, query)) / name):
            if folder.is_dir():
                return str(folder)
    return place
