"""Files that are the same to the byte are read once, whatever they are called and wherever they lie."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from pmlm_core.corpus.pieces import add_ranges
from pmlm_core.corpus.sources import LeftOut, Source
from pmlm_core.storage import resolve

_ENDS = 64 << 10

Mapper = Callable[[Callable[[Source], str], Iterable[Source]], Iterable[str]]


def without_copies(sources: list[Source], on_skip: Callable[[LeftOut], None], map: Mapper | Any = map) -> list[Source]:
    """`sources` without those whose bytes an earlier one has and that would be read in the same way.

    Only files of equal length are opened, and only those whose ends are equal, too, are read to the end.

    Args:
        sources: from `list_sources`.
        on_skip: called for every copy.
        map: how to go through files, for example `ThreadPoolExecutor().map`.
    """
    alike = _alike(sources, [repr((source.size, source.kind, source.compression)) for source in sources])
    for digest in (_ends, _whole):
        alike = [group for each in alike for group in _alike(each, list(map(digest, each)))]
    first = {copy.uri: group[0].uri for group in alike for copy in group[1:]}
    for uri, original in sorted(first.items()):
        on_skip(LeftOut(uri, "duplicate", f"the same bytes as {original}; left out"))
    return [source for source in sources if source.uri not in first]


def _alike(sources: list[Source], keys: list[str]) -> list[list[Source]]:
    """Groups of at least two with an equal key, in the order of the sources; an empty file or key is like no other."""
    groups: dict[str, list[Source]] = defaultdict(list)
    for source, key in zip(sources, keys, strict=True):
        if source.size and key:
            groups[key].append(source)
    return [group for group in groups.values() if len(group) > 1]


def _ends(source: Source) -> str:
    return _digest(source, [(0, _ENDS), (max(0, source.size - _ENDS), source.size)])


def _whole(source: Source) -> str:
    return _digest(source, [(0, source.size)])


def _digest(source: Source, ranges: list[tuple[int, int]]) -> str:
    """SHA-256 (hex) of parts of a file; "" of one that may not be read, which its reader will say."""
    sha = hashlib.sha256()
    file_system, path = resolve(source.uri)
    try:
        with file_system.open_input_file(path) as file:
            add_ranges(sha, file, ranges)
    except PermissionError:
        return ""
    return sha.hexdigest()
