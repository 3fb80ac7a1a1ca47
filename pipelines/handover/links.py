"""Where links in folders lead: a model of the hub's cache, and data that lies on another disk, consist of them."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

_AT_MOST = 50_000
"""Entries that are looked at, in folders as near as possible: a data_dir may be somebody's home."""


def led_to(folders: Sequence[str], but_in: Sequence[str] = ()) -> list[str]:
    """What links in and below the folders name outside of them; links in folders so named count along.

    Left out are links that lead nowhere, and those to a folder above: all of a disk was not meant by them.

    Args:
        but_in: folders in which links are not followed.
    """
    roots = [os.path.realpath(folder) for folder in folders]
    seen, found = {os.path.realpath(folder) for folder in but_in}, dict[str, None]()
    waiting, left = deque(roots), _AT_MOST
    while waiting:
        folder = waiting.popleft()
        if folder in seen:
            continue
        seen.add(folder)
        for entry in _entries(folder):
            if (left := left - 1) < 0:
                return list(found)
            if not entry.is_symlink():
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                continue
            target = os.path.realpath(entry.path)
            if not os.path.exists(target) or any(lies_in(root, target) for root in roots):
                continue
            if os.path.isdir(target):
                waiting.append(target)
            if not any(lies_in(target, root) for root in roots):
                found[target] = None
    return list(found)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:  # no folder, or one that may not be read
        yield from entries


def lies_in(path: str, folder: str) -> bool:
    """Whether a real path is that of the folder, or below it."""
    return os.path.commonpath([folder, path]) == folder
