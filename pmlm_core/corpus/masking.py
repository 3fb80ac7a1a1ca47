"""Blockwise masking (the paper's Algorithm 1, docs/method.md, 2): which positions are masked, in which steps, and what
stands there in the corrupted input.

Compiled loops over whole arrays of windows; every draw is a function of (stream key, view, row) and nothing else.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmlm_core.corpus.packing import Windows
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import ConfigError
from pmlm_core.jit import njit
from pmlm_core.randomness import below, draw, key, mix64

MASK_SHARE = 0.8  # corruption of a masked position: [MASK] ...
RANDOM_SHARE = 0.1  # ... a random ordinary token; the rest stay as they are
_STALLED = 1000  # discarded draws in a row after which we ask whether any legal block is left


@dataclass
class MaskedView:
    """One masking of R windows.

    Attributes:
        positions: int32, masked positions within their window, in factorization order (ascending inside a step).
        offsets: int64 [R + 1]; window r owns `positions[offsets[r]:offsets[r + 1]]`, likewise `replacement_ids`.
        step_lengths: int32, number of positions of every step, in factorization order.
        step_offsets: int64 [R + 1]; window r owns `step_lengths[step_offsets[r]:step_offsets[r + 1]]`.
        replacement_ids: int32, what the corrupted input holds at each of `positions`.
    """

    positions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    step_lengths: npt.NDArray[np.int32]
    step_offsets: npt.NDArray[np.int64]
    replacement_ids: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def check_masking(mask_prob: float, block_prob: float, min_block: int, max_block: int) -> None:
    """Refuse masking options that mean nothing, with a sentence.

    Raises:
        ConfigError: a probability outside its range, or block lengths out of order.
    """
    if not 0.0 < mask_prob < 1.0:
        raise ConfigError(f"mask_prob is {mask_prob}; it must lie between 0 and 1, both excluded (the paper: 0.15).")
    if not 0.0 <= block_prob <= 1.0:
        raise ConfigError(f"block_prob is {block_prob}; it must lie in 0..1 (the paper: 0.4).")
    if not 1 <= min_block <= max_block <= 255:
        raise ConfigError(
            f"min_block is {min_block} and max_block {max_block}; they must satisfy 1 <= min_block <= max_block <= 255 "
            "(the paper: 2 and 6)."
        )


def mask_windows(
    windows: Windows,
    *,
    view: int,
    stream_key: int,
    first_row: int,
    special_ids: SpecialIds,
    ordinary_ids: npt.NDArray[np.integer],
    mask_prob: float = 0.15,
    block_prob: float = 0.4,
    min_block: int = 2,
    max_block: int = 6,
) -> MaskedView:
    """Mask windows by Algorithm 1 and corrupt them 80/10/10.

    Until at least `mask_prob` of the maskable positions are masked: draw a start uniformly and a length (uniform
    `min_block..max_block` with probability `block_prob`, else 1); the block becomes the next step if none of its
    positions is special, masked or beyond the end, otherwise the draw is discarded. A window is left short of its
    budget only where no legal block remains (possible with `block_prob=1` alone), so the loop always ends.

    Args:
        windows: R windows (see `Packer`).
        view: number of this masking, 0-based; views are independent of each other.
        stream_key: unsigned 64-bit key of the shard; `first_row`: number of `windows`' first row in it. The result for
            a row is a function of (stream_key, view, row number, its tokens), however the windows are cut into calls.
        special_ids: never masked (all six ids, wherever they stand).
        ordinary_ids: ids a random replacement is drawn from, uniformly.
        mask_prob, block_prob, min_block, max_block: see above.

    Raises:
        ConfigError: an option out of range, or no ordinary ids.

    Source: docs/method.md, 2; Bao et al. 2020, Algorithm 1.

    >>> row = Windows(np.array([0, 7, 8, 2, 9, 2], np.int32), np.array([0, 6]), np.array([4], np.int32))
    >>> ids = SpecialIds()
    >>> masked = mask_windows(row, view=0, stream_key=3, first_row=0, special_ids=ids, ordinary_ids=np.arange(6, 50))
    >>> set(masked.positions.tolist()) <= {1, 2, 4}
    True
    """
    check_masking(mask_prob, block_prob, min_block, max_block)
    ordinary = np.asarray(ordinary_ids, dtype=np.int32)
    if not len(ordinary):
        raise ConfigError("The tokenizer names no ordinary ids to draw random replacements from; train a bigger one.")
    special = tuple(np.int32(i) for i in special_ids.as_dict().values())
    return MaskedView(
        *_mask(
            windows.input_ids,
            windows.offsets,
            np.uint64(key(stream_key, "masking", view)),
            np.uint64(key(stream_key, "corruption", view)),
            first_row,
            special,
            ordinary,
            mask_prob,
            block_prob,
            min_block,
            max_block,
        )
    )


@njit(nogil=True, inline="always")
def _low(bits):  # type: ignore[no-untyped-def]
    """The lower 32 bits; `below` uses the upper 32, so one draw serves a choice and a coin."""
    return np.int64(bits & np.uint64(0xFFFFFFFF))


@njit(nogil=True)
def _mask(  # type: ignore[no-untyped-def]
    input_ids, offsets, mask_key, corruption_key, first_row, special, ordinary,
    mask_prob, block_prob, min_block, max_block,
):  # fmt: skip
    rows = len(offsets) - 1
    longest, bound = 0, 0
    for r in range(rows):
        n = offsets[r + 1] - offsets[r]
        longest = max(longest, n)
        bound += min(n, np.int64(mask_prob * n) + 1 + max_block)
    free = np.zeros(longest, np.bool_)  # maskable and not masked yet
    positions = np.empty(bound, np.int32)
    replacements = np.empty(bound, np.int32)
    step_lengths = np.empty(bound, np.int32)
    position_offsets = np.zeros(rows + 1, np.int64)
    step_offsets = np.zeros(rows + 1, np.int64)
    sos, pad, eos, unk, mask, pseudo = special
    block_below = np.int64(block_prob * 2**32)
    mask_below = np.int64(MASK_SHARE * 2**32)
    random_below = np.int64((MASK_SHARE + RANDOM_SHARE) * 2**32)
    p, s = 0, 0
    for r in range(rows):
        row = input_ids[offsets[r] : offsets[r + 1]]
        n = len(row)
        maskable = 0
        for i in range(n):  # branch-free: the compiler makes vector code of it
            t = row[i]
            ok = (t != sos) & (t != pad) & (t != eos) & (t != unk) & (t != mask) & (t != pseudo)
            free[i] = ok
            maskable += ok
        budget = np.int64(np.ceil(mask_prob * maskable - 1e-9))  # 0.15 * 20 is 3, whatever the last bit says
        stream = mix64(mask_key + np.uint64(first_row + r))
        first = p
        counter = np.uint64(0)
        discarded = 0
        while p - first < budget:
            start = below(draw(stream, counter), n)  # a special is never free, so the draw is discarded
            bits = draw(stream, counter + np.uint64(1))
            block = min_block + below(bits, max_block - min_block + 1)
            length = block if _low(bits) < block_below else 1
            counter += np.uint64(2)
            legal = start + length <= n
            if legal:
                for i in range(start, start + length):
                    legal = legal and free[i]
            if not legal:
                discarded += 1
                if discarded % _STALLED == 0 and not _any_legal(free[:n], min_block if block_prob >= 1.0 else 1):
                    break
                continue
            discarded = 0
            for i in range(start, start + length):
                free[i] = False
                positions[p] = i
                p += 1
            step_lengths[s] = length
            s += 1
        stream = mix64(corruption_key + np.uint64(first_row + r))
        replacements[first:p] = mask
        for i in range(first, p):
            bits = draw(stream, np.uint64(i - first))
            if _low(bits) >= mask_below:
                random = ordinary[below(bits, len(ordinary))]
                replacements[i] = random if _low(bits) < random_below else row[positions[i]]
        position_offsets[r + 1] = p
        step_offsets[r + 1] = s
    return positions[:p], position_offsets, step_lengths[:s], step_offsets, replacements[:p]


@njit(nogil=True)
def _any_legal(free, shortest):  # type: ignore[no-untyped-def]
    """Whether `shortest` free positions in a row exist."""
    run = 0
    for f in free:
        run = run + 1 if f else 0
        if run >= shortest:
            return True
    return False
