"""Forcing files and folders to disk: what was written is there after a power cut only then."""

import os
from pathlib import Path


def force(path: str | Path) -> None:
    """Wait until a file's bytes, or a folder's list of names, are on the disk.

    Raises:
        OSError: the disk failed; what was written may be lost.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
