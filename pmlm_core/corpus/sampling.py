"""A random sample of a corpus, piece by piece: what a piece gives depends on the seed and the piece alone.

A passage is some 2000 characters of one document, so that a sample of books is not a handful of books. Of a piece's
passages those with the smallest keys are taken until they fill the piece's share; keys are random numbers, so this is
a uniform sample without replacement, and it holds no more than the share in memory.
"""

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Piece
from pmlm_core.corpus.readers import read_documents
from pmlm_core.corpus.rejects import Reject
from pmlm_core.corpus.reports import place
from pmlm_core.corpus.text_cuts import cut
from pmlm_core.randomness import key

PASSAGE_CHARACTERS = 2000
_PASSAGE_LIMIT_CHARACTERS = 4000
# A sample much smaller than the corpus is not worth reading all of it: this many pieces, spread at random, are enough
# to be representative, as long as they hold several times the sample.
_ENOUGH_PIECES = 256
_ENOUGH_TIMES_SAMPLE = 8


@dataclass(frozen=True)
class Share:
    """A piece to sample: its number in the plan, and how many bytes of text to take."""

    number: int
    piece: Piece
    sample_bytes: int


@dataclass(frozen=True)
class Sample:
    """What a piece gave: passages in reading order, bytes and documents read, rejects by reason and one in words."""

    passages: list[str]
    sample_bytes: int
    read_bytes: int
    documents: int
    rejects: dict[str, int]
    example: str = ""


def share_out(pieces: Sequence[Piece], sample_bytes: int, seed: int) -> list[Share]:
    """Divide the wanted sample among the pieces in proportion to their text; of a very large corpus, some pieces only.

    Args:
        pieces: from `plan_pieces`.
        sample_bytes: UTF-8 bytes wanted in all.
        seed: decides which pieces of a very large corpus are read.
    """
    weights = [sum(span.weight for span in piece.spans) for piece in pieces]
    total = sum(weights)
    if not total:
        return []
    wanted = max(_ENOUGH_PIECES, math.ceil(_ENOUGH_TIMES_SAMPLE * sample_bytes * len(pieces) / total))
    chosen = sorted(range(len(pieces)), key=lambda number: key(seed, "tokenizer-pieces", number))[:wanted]
    held = sum(weights[number] for number in chosen) or 1
    return [
        Share(number, pieces[number], math.ceil(sample_bytes * weights[number] / held)) for number in sorted(chosen)
    ]


def sample_piece(share: Share, fmt: InputFormat, seed: int) -> Sample:
    """Read a piece and take its share of passages.

    Returns:
        At least `share.sample_bytes` (and at most one passage more), or everything if the piece holds less.

    Raises:
        OSError: the disk or the network failed.
    """
    heap: list[tuple[int, int, str, int]] = []  # (-key, position, passage, bytes): the largest key on top
    held = read = documents = position = 0
    rejects: Counter[str] = Counter()
    example = ""
    for found in read_documents(share.piece, fmt):
        if isinstance(found, Reject):
            rejects[found.reason] += 1
            example = example or place(share.piece.spans[found.span], found)
            continue
        documents += 1
        for passage in cut(found.text, PASSAGE_CHARACTERS, _PASSAGE_LIMIT_CHARACTERS):
            size = len(passage.encode("utf-8", "replace"))
            read += size
            rank = -key(seed, "tokenizer-sample", share.number, position)
            position += 1
            if held >= share.sample_bytes and (not heap or rank < heap[0][0]):
                continue
            heapq.heappush(heap, (rank, position, passage, size))
            held += size
            while heap and held - heap[0][3] >= share.sample_bytes:
                held -= heapq.heappop(heap)[3]
    passages = [passage for _, _, passage, _ in sorted(heap, key=lambda item: item[1])]
    return Sample(passages, held, read, documents, dict(rejects), example)
