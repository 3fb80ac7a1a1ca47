"""Backward of the relative bias where every row of the batch has positions of its own: the gradients of the scores,
summed by bin, and of the queries on the way; deterministic, so without atomics.

Queries and keys are taken in order of position, so that a tile has few bins.
"""

import triton
import triton.language as tl

from pmlm_core.model.attention.tiled.bins import binned, scores_gradient
from pmlm_core.model.attention.tiled.parts import UNSEEN, load_rows, places, which


@triton.jit
def bias_gradient_by_row(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    q_grad_ptr,
    part_ptr,
    lse_ptr,
    delta_ptr,
    table_ptr,
    bin_ptr,
    edge_ptr,
    q_at_ptr,
    k_at_ptr,
    q_order_ptr,
    k_order_ptr,
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
    made_row,
    made_step,
    made_head,
    lse_row,
    random_row,
    code_row,
    limit_row,
    start,
    queries,
    keys,
    heads,
    reach,
    far,
    scale,
    score_scale,
    threshold,
    kept_scale,
    WIDTH: tl.constexpr,
    BINS: tl.constexpr,
    Q_PLACES: tl.constexpr,
    K_PLACES: tl.constexpr,
    CODES: tl.constexpr,
    RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    NATIVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Positions of each row: a tile of queries of one head and row, over all keys, both in order of position.

    The gradient of these queries is made too, as by `queries_gradient`, whose arguments the others are.

    Args:
        part_ptr: [rows, tiles of queries, heads, 2, BINS].
    """
    q_first, program = which(queries, BLOCK_Q)
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    random_ptr += program.to(tl.int64) * random_row
    # A pseudo mask and its true token stand at one position. Of 16 queries every second one first, they are 8 apart, in
    # the registers of one thread, and their gradients can be summed before they are binned.
    lane = tl.arange(0, BLOCK_Q)
    q_rank = q_first + lane // 16 * 16 + 2 * (lane % 8) + lane % 16 // 8
    q_inside = q_rank < queries
    # Ranks beyond the last stand for the last, so that the tile's range of distances is no wider.
    q_index = _ranked(q_order_ptr + row * queries, q_rank, queries - 1, Q_PLACES)
    q = load_rows(q_ptr + row * q_row + head * q_head, q_index, q_step, q_inside, WIDTH, True)
    grad = load_rows(grad_ptr + row * grad_row + head * grad_head, q_index, grad_step, q_inside, WIDTH, True)
    at = program.to(tl.int64) * lse_row + start + q_index
    lse = tl.load(lse_ptr + at, mask=q_inside, other=float("inf"))
    delta = tl.load(delta_ptr + at, mask=q_inside, other=0.0)
    q_pos = places(q_at_ptr + row * queries, q_index, q_index >= 0, Q_PLACES, False)
    limit = tl.zeros([BLOCK_Q], tl.int32)
    own = limit - 1
    if CODES:
        limit = tl.load(limit_ptr + row * limit_row + q_index)
        own = tl.load(own_ptr + row * limit_row + q_index)
    q_random = q_index
    if DROPOUT:
        q_random = tl.load(random_ptr + start + q_index, mask=q_inside, other=0)
    table_ptr += head * (2 * reach - 1) + reach - 1
    bin_ptr += reach - 1
    k_ptr += row * k_row + head * k_head
    v_ptr += row * k_row + head * k_head
    k_at_ptr += row * keys
    k_order_ptr += row * keys
    code_ptr += row * code_row
    least_q, most_q = tl.min(q_pos, 0), tl.max(q_pos, 0)
    both_pos = tl.reshape(q_pos, [BLOCK_Q // 16, 2, 8])
    pair_pos = tl.reshape(tl.max(both_pos, 1), [BLOCK_Q // 2])
    other_pos = tl.reshape(tl.min(both_pos, 1), [BLOCK_Q // 2])
    paired = tl.max(pair_pos - other_pos, 0) == 0

    q_grad = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    beyond = tl.zeros([BINS], tl.float32)
    everything = tl.zeros([BINS], tl.float32)
    for k_first in range(0, keys, BLOCK_K):
        k_rank = k_first + tl.arange(0, BLOCK_K)
        k_inside = k_rank < keys
        k_index = _ranked(k_order_ptr, k_rank, keys - 1, K_PLACES)
        k_pos = places(k_at_ptr, k_index, k_index >= 0, K_PLACES, False)
        code = tl.where(k_inside, 0, UNSEEN)
        if CODES:
            code = tl.load(code_ptr + k_index, mask=k_inside, other=UNSEEN)
        k_random = k_index
        if DROPOUT:
            k_random = tl.load(random_ptr + lse_row + k_index, mask=k_inside, other=0)
        first_distance, last_distance = tl.min(k_pos, 0) - most_q, tl.max(k_pos, 0) - least_q
        k = load_rows(k_ptr, k_index, k_step, k_inside, WIDTH, True)
        scores_grad = scores_gradient(
            q,
            k,
            load_rows(v_ptr, k_index, k_step, k_inside, WIDTH, True),
            grad,
            lse,
            delta,
            table_ptr - q_pos,
            k_pos.to(tl.int64),
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
        q_grad = tl.dot(scores_grad.to(k.dtype), k, q_grad, input_precision=PRECISION)
        first_bin, last_bin = tl.load(bin_ptr + first_distance), tl.load(bin_ptr + last_distance)
        if paired:
            pairs = tl.reshape(
                tl.sum(tl.reshape(scores_grad, [BLOCK_Q // 16, 2, 8, BLOCK_K]), 1), [BLOCK_Q // 2, BLOCK_K]
            )
            more, all_of_it = binned(pairs, k_pos[None, :] - pair_pos[:, None], first_bin, last_bin, edge_ptr, BINS)
        else:
            more, all_of_it = binned(scores_grad, k_pos[None, :] - q_pos[:, None], first_bin, last_bin, edge_ptr, BINS)
        beyond += more
        everything += all_of_it
    at = row * made_row + head * made_head + q_index[:, None] * made_step + tl.arange(0, WIDTH)[None, :]
    tl.store(q_grad_ptr + at, (q_grad * score_scale).to(q_grad_ptr.dtype.element_ty), mask=q_inside[:, None])
    tile = row * tl.cdiv(queries, BLOCK_Q) + q_first // BLOCK_Q
    part_ptr += (tile * heads + head) * 2 * BINS
    tl.store(part_ptr + tl.arange(0, BINS), beyond)
    tl.store(part_ptr + BINS + tl.arange(0, BINS), everything)


@triton.jit
def _ranked(order_ptr, rank, last, GIVEN: tl.constexpr):
    """Which query or key has a rank; ranks beyond the last stand for the last."""
    rank = tl.minimum(rank, last)
    if GIVEN:
        return tl.load(order_ptr + rank)
    else:
        return rank
