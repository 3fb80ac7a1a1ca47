"""What the tiled kernels share: bias and visibility of a tile of scores, dropout, and the gradient of its scores.

A tile is [M, N] or, where that suits the products, [N, M]: the vectors of queries and keys come in already with the
axis they broadcast along. Scores and log-sum-exps are to the base 2, whose exponential a GPU has in hardware.
"""

import triton
import triton.language as tl

UNSEEN: tl.constexpr = tl.constexpr(2**30 + 1)
"""`pseudo.UNSEEN`, of keys beyond the last."""


@triton.jit
def which(length, BLOCK: tl.constexpr):
    """The first index of this program's tile, and its head, counted through all rows of the batch.

    One number for both: the second dimension of a grid ends at 65,535, and tiles of one head should run side by side.
    """
    tiles = tl.cdiv(length, BLOCK)
    return tl.program_id(0) % tiles * BLOCK, tl.program_id(0) // tiles


@triton.jit
def ruled(
    product,
    scale,
    q_pos,
    k_pos,
    first_distance,
    last_distance,
    key_code,
    limit,
    own,
    table_ptr,
    bin_ptr,
    reach,
    BIAS: tl.constexpr,
    MASK: tl.constexpr,
):
    """Scores to the base 2 of a tile of products of queries and keys; -inf where a key is not seen.

    Args:
        scale: E ** -0.5 * log2(e).
        first_distance, last_distance: no distance in the tile is beyond them.
        key_code: with MASK; UNSEEN of keys beyond the last.
        table_ptr: the head's bias by distance, times log2(e), at distance 0.
        bin_ptr: bins by distance, at distance 0.
    """
    scores = product * scale
    if BIAS:
        # Far tiles lie in one bin. The branch also keeps the look-up out of the pipeline of loads, where it would take
        # shared memory for a whole tile.
        if tl.load(bin_ptr + first_distance) == tl.load(bin_ptr + last_distance):
            scores += tl.load(table_ptr + first_distance)
        else:
            scores += tl.load(table_ptr + (k_pos - q_pos))
    if MASK:
        # Of the key alone, so once for a whole row of the tile.
        past_code = tl.where((key_code & 1) == 0, key_code, UNSEEN)
        scores = tl.where((past_code <= limit) | (key_code == own), scores, float("-inf"))
    return scores


@triton.jit
def kept(q_random, k_random, threshold):
    """Whether dropout keeps each score of a tile: whatever the tiling, and whichever kernel asks.

    A random number of its own for every score would take longer to make than the attention it is for. Here every query
    and every key has an odd one, and the upper bits of their product modulo 2**32 decide: along a row or a column these
    are as independent as the numbers themselves, and between two rows as those of a random multiplier.
    """
    product = q_random.to(tl.uint32, bitcast=True) * k_random.to(tl.uint32, bitcast=True)
    return product.to(tl.int32, bitcast=True) >= threshold


@triton.jit
def load_rows(ptr, rows, stride, inside, WIDTH: tl.constexpr):
    """Rows of queries, keys or values, [L, E]; 0 outside."""
    columns = tl.arange(0, WIDTH)
    return tl.load(ptr + rows[:, None] * stride + columns[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def span(pos, first, reach, BLOCK: tl.constexpr, GIVEN: tl.constexpr):
    """The least and the largest position of a tile that begins at index `first`."""
    if GIVEN:
        return tl.min(pos, 0), tl.max(pos, 0)
    else:
        return first, tl.minimum(first + BLOCK, reach) - 1


@triton.jit
def places(at_ptr, index, last, GIVEN: tl.constexpr):
    """Positions of queries or keys by index; those beyond the last stand where the last does."""
    index = tl.minimum(index, last)
    if GIVEN:
        return tl.load(at_ptr + index)
    else:
        return index
