"""What the tiled kernels share: bias and visibility of a tile of scores, and dropout.

A tile is [M, N] or, where that suits the products, [N, M]: the vectors of queries and keys come in already with the
axis they broadcast along. Scores and log-sum-exps are to the base 2, whose exponential a GPU has in hardware.

A call's keys are gone through in two segments, either of which may be empty (`interface.Rule.plain`): plain keys, which
stand at 0, 1, 2, … and which every query sees, and the rest, with places and codes.
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
def biased(
    product,
    scale,
    row_at,
    column,
    first_distance,
    last_distance,
    table_ptr,
    far,
    BIAS: tl.constexpr,
    SPANNED: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Scores to the base 2 of a tile of products of queries and keys.

    Args:
        scale: E ** -0.5 * log2(e).
        row_at, column: the bias of a score lies at row_at[m] + column[n], see `common_and_rest`.
        first_distance, last_distance: no distance in the tile is beyond them; read if SPANNED.
        table_ptr: the head's bias by distance, times log2(e), at distance 0.
        far: from so far on, either way, the bias is the same.
    """
    scores = product * scale
    if BIAS:
        if SPANNED:
            if (first_distance >= far) | (last_distance <= -far):
                scores += tl.load(table_ptr + first_distance)
            else:
                scores += looked_up(row_at[:, None] + column[None, :], NATIVE)
        else:
            scores += looked_up(row_at[:, None] + column[None, :], NATIVE)
    return scores


@triton.jit
def common_and_rest(first, given, LENGTH: tl.constexpr, GIVEN: tl.constexpr):
    """Places along an axis of a tile as a common part and the rest.

    The rest is 64 bits wide and, where places are not given, known to the compiler but for the thread: addresses of a
    thread then differ by constants, which loads take for nothing.
    """
    if GIVEN:
        return 0, given.to(tl.int64)
    else:
        return first, tl.arange(0, LENGTH).to(tl.int64)


@triton.jit
def looked_up(at, NATIVE: tl.constexpr):
    """Numbers of a table at a tile of addresses.

    A load of Triton's own has the tile laid out for it, anew for every tile: two exchanges through shared memory and
    their barriers, which took longer than all else. An instruction that is written out takes the layout it finds.
    """
    if NATIVE:
        return tl.inline_asm_elementwise(
            "ld.global.nc.f32 $0, [$1];", "=f,l", [at], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.load(at)


@triton.jit
def seen(scores, key_code, limit, own, k_inside, CODES: tl.constexpr, RAGGED: tl.constexpr):
    """The scores, -inf where a key is not seen or is beyond the last.

    Args:
        key_code: UNSEEN of keys beyond the last.
        RAGGED: some keys may be beyond the last.
    """
    if CODES:
        # Of the key alone, so once for a whole row of the tile.
        past_code = tl.where((key_code & 1) == 0, key_code, UNSEEN)
        scores = tl.where((past_code <= limit) | (key_code == own), scores, float("-inf"))
    elif RAGGED:
        scores = tl.where(k_inside, scores, float("-inf"))
    return scores


@triton.jit
def dropped(x, y, q_random, k_random, threshold, NATIVE: tl.constexpr):
    """`x` and `y` where dropout keeps a score of a tile, else 0: whatever the tiling, and whichever kernel asks.

    A random number of its own for every score would take longer to make than the attention it is for. Here every query
    and every key has an odd one, and the upper bits of their product modulo 2**32 decide: along a row or a column these
    are as independent as the numbers themselves, and between two rows as those of a random multiplier.
    """
    if NATIVE:
        # Written out, the decision stays a predicate; a tile of truth values is packed into bytes and out again.
        return tl.inline_asm_elementwise(
            """{
            .reg .u32 product;
            .reg .pred keep;
            mul.lo.u32 product, $4, $5;
            setp.ge.s32 keep, product, $6;
            selp.f32 $0, $2, 0f00000000, keep;
            selp.f32 $1, $3, 0f00000000, keep;
            }""",
            "=&f,=f,f,f,r,r,r",
            [x, y, q_random, k_random, threshold],
            dtype=(tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    else:
        product = q_random.to(tl.uint32, bitcast=True) * k_random.to(tl.uint32, bitcast=True)
        keep = product.to(tl.int32, bitcast=True) >= threshold
        return tl.where(keep, x, 0.0), tl.where(keep, y, 0.0)


@triton.jit
def load_rows(ptr, rows, stride, inside, WIDTH: tl.constexpr, RAGGED: tl.constexpr):
    """Rows of queries, keys or values, [L, E]; 0 outside, if some may be: RAGGED."""
    at = ptr + rows[:, None] * stride + tl.arange(0, WIDTH)[None, :]
    if RAGGED:
        return tl.load(at, mask=inside[:, None], other=0.0)
    else:
        return tl.load(at)


@triton.jit
def load(at, inside, other, RAGGED: tl.constexpr):
    """Numbers of queries or keys; `other` outside, if some may be: RAGGED."""
    if RAGGED:
        return tl.load(at, mask=inside, other=other)
    else:
        return tl.load(at)


@triton.jit
def places(at_ptr, index, inside, GIVEN: tl.constexpr, RAGGED: tl.constexpr):
    """Positions of queries or keys by index; those beyond the last stand anywhere in reach."""
    if GIVEN:
        return load(at_ptr + index, inside, 0, RAGGED)
    else:
        return index
