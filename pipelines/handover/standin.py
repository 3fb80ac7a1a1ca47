"""Folders on a worker's own disk that stand in for the driver's, and go with the process that made them.

PMLM_CACHE/away/KEY/       a lock below it is held by every process that uses it; what nobody holds is removed
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from pmlm_core.addresses import cache_folder

_LOCK, _GOING = ".in-use", ".going-"


@contextlib.contextmanager
def standin(key: str) -> Iterator[Path]:
    """A folder for the time of the block, the same one for every process of this machine that gives the same key."""
    root = cache_folder("away")
    _tidy(root)
    folder = root / key
    handle = _share(folder)
    try:
        yield folder
    finally:
        os.close(handle)
        _remove_unused(folder)


def _share(folder: Path) -> int:
    """Hold the folder, beside others."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # removed by another, who had found it unused
            continue
        fcntl.flock(handle, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == (folder / _LOCK).stat().st_ino:
                return handle
        os.close(handle)


def _tidy(root: Path) -> None:
    """Remove what killed processes have left."""
    if root.is_dir():
        for folder in root.iterdir():
            if folder.name.startswith(_GOING):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _remove_unused(folder)


def _remove_unused(folder: Path) -> None:
    """Remove a folder that nobody holds; renamed first, so that nobody finds half of it."""
    with contextlib.suppress(OSError):  # it is gone, or another's
        handle = os.open(folder / _LOCK, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            going = folder.with_name(f"{_GOING}{folder.name}-{uuid.uuid4().hex[:8]}")
            folder.rename(going)
            shutil.rmtree(going, ignore_errors=True)
        finally:
            os.close(handle)
