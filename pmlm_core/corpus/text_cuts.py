"""Cutting a long text at white space, so that a tokenizer sees some kilobytes at a time.

Tokens of the usual models never cross white space, so encoding the parts and joining the ids gives what encoding the
whole would give, only better and cheaper: SentencePiece adds up scores in float32, which no longer tells
segmentations apart after some hundred thousand characters, its BPE slows down with length (2.5 times on whole books),
and both it and `tokenizers` hold tens of bytes a character while they work.
"""

import re
from collections.abc import Iterator

PART_CHARACTERS = 4096
HARD_LIMIT_CHARACTERS = 1 << 20
_WHITE = re.compile("[ \n]")


def cut(text: str, size: int = PART_CHARACTERS, hard_limit: int = HARD_LIMIT_CHARACTERS) -> Iterator[str]:
    """Yield consecutive parts of `text`, which joined are the text, each but the last at least `size` characters long.

    A part ends before a space or a newline. A run of `hard_limit` characters without white space is cut where it
    stands, which keeps memory bounded.

    >>> list(cut("one two three", size=4))
    ['one two', ' three']
    >>> list(cut(""))
    []
    """
    if not 0 < size <= hard_limit:
        raise ValueError(f"a part needs 0 < size <= hard_limit, got size {size} and hard_limit {hard_limit}")
    start, n = 0, len(text)
    while n - start > size:
        limit = min(n, start + hard_limit)
        found = _WHITE.search(text, start + size, limit)
        stop = found.start() if found else limit
        yield text[start:stop]
        start = stop
    if start < n:
        yield text[start:]
