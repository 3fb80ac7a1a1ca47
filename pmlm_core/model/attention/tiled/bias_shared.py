"""Backward of the relative bias where all rows of the batch have the same positions: the gradients of the scores,
summed over the rows, then by bin; deterministic, so without atomics.

They are computed anew, tile by tile: once they are summed over the rows, binning costs next to nothing.
"""

import triton
import triton.language as tl

from pmlm_core.model.attention.tiled.bins import binned, scores_gradient
from pmlm_core.model.attention.tiled.parts import UNSEEN, common_and_rest, load_rows


@triton.jit
def bias_gradient_shared(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    part_ptr,
    lse_ptr,
    delta_ptr,
    table_ptr,
    bin_ptr,
    edge_ptr,
    code_ptr,
    limit_ptr,
    own_ptr,
    random_ptr,
    q_row,
    q_step,
    q_head,
    k_row,
    k_step,
    k_head,
    grad_row,
    grad_step,
    grad_head,
    lse_row,
    random_row,
    code_row,
    limit_row,
    start,
    queries,
    keys,
    rows,
    heads,
    groups,
    reach,
    far,
    scale,
    threshold,
    kept_scale,
    WIDTH: tl.constexpr,
    BINS: tl.constexpr,
    CODES: tl.constexpr,
    RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    NATIVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Positions 0, 1, 2, … in every row: a tile of queries and keys of one head, over a group of rows of the batch.

    Tiles that lie far apart altogether are left out: `queries_gradient` sums what lies far apart, and the first bin and
    the last here are good for nothing but their neighbours.

    Args:
        part_ptr: [tiles, groups, heads, 2, BINS].
        groups: rows g, g + groups, g + 2 * groups, … of the batch go together.
    """
    k_tiles = tl.cdiv(keys, BLOCK_K)
    q_first = (tl.program_id(0) // k_tiles) * BLOCK_Q
    k_first = (tl.program_id(0) % k_tiles) * BLOCK_K
    head, group = (tl.program_id(1) // groups).to(tl.int64), tl.program_id(1) % groups
    q_index, k_index = q_first + tl.arange(0, BLOCK_Q), k_first + tl.arange(0, BLOCK_K)
    q_inside, k_inside = q_index < queries, k_index < keys
    first_distance, last_distance = k_first - q_first - (BLOCK_Q - 1), k_first - q_first + (BLOCK_K - 1)
    common, column = common_and_rest(k_first, k_index, BLOCK_K, False)
    table_ptr += head * (2 * reach - 1) + reach - 1
    bin_ptr += reach - 1
    q_ptr += head * q_head
    k_ptr += head * k_head
    v_ptr += head * k_head
    grad_ptr += head * grad_head

    row_at = (table_ptr + common) - q_index
    limit = tl.zeros([BLOCK_Q], tl.int32)
    own = limit - 1
    code = tl.where(k_inside, 0, UNSEEN)
    q_random, k_random = q_index, k_index
    summed = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    rows = tl.where((first_distance >= far) | (last_distance <= -far), 0, rows)
    for each in range(group, rows, groups):
        row = head * 0 + each  # int64, whatever kind of number counts the loop
        at = (row * heads + head) * lse_row + start + q_index
        if CODES:
            code = tl.load(code_ptr + row * code_row + k_index, mask=k_inside, other=UNSEEN)
            limit = tl.load(limit_ptr + row * limit_row + q_index, mask=q_inside, other=0)
            own = tl.load(own_ptr + row * limit_row + q_index, mask=q_inside, other=-1)
        if DROPOUT:
            random = random_ptr + (row * heads + head) * random_row
            q_random = tl.load(random + start + q_index, mask=q_inside, other=0)
            k_random = tl.load(random + lse_row + k_index, mask=k_inside, other=0)
        summed += scores_gradient(
            load_rows(q_ptr + row * q_row, q_index, q_step, q_inside, WIDTH, True),
            load_rows(k_ptr + row * k_row, k_index, k_step, k_inside, WIDTH, True),
            load_rows(v_ptr + row * k_row, k_index, k_step, k_inside, WIDTH, True),
            load_rows(grad_ptr + row * grad_row, q_index, grad_step, q_inside, WIDTH, True),
            tl.load(lse_ptr + at, mask=q_inside, other=float("inf")),
            tl.load(delta_ptr + at, mask=q_inside, other=0.0),
            row_at,
            column,
            first_distance,
            last_distance,
            code,
            limit,
            own,
            k_inside,
            table_ptr,
            far,
            scale,
            kept_scale,
            threshold,
            q_random,
            k_random,
            CODES,
            RAGGED,
            DROPOUT,
            PRECISION,
            NATIVE,
        )
    beyond, everything = binned(
        summed,
        k_index[None, :] - q_index[:, None],
        tl.load(bin_ptr + first_distance),
        tl.load(bin_ptr + last_distance),
        edge_ptr,
        BINS,
    )
    part_ptr += ((tl.program_id(0) * groups + group) * heads + head) * 2 * BINS
    tl.store(part_ptr + tl.arange(0, BINS), beyond)
    tl.store(part_ptr + BINS + tl.arange(0, BINS), everything)
