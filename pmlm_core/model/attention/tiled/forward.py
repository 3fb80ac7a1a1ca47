"""Forward: each program takes a tile of queries of one head and walks over the keys with a running softmax.

Source: Dao 2023, FlashAttention-2, algorithm 1.
"""

import triton
import triton.language as tl

from pmlm_core.model.attention.tiled.parts import (
    UNSEEN,
    biased,
    common_and_rest,
    dropped,
    load,
    load_rows,
    places,
    seen,
    which,
)


@triton.jit
def forward(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    table_ptr,
    q_at_ptr,
    k_at_ptr,
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
    out_row,
    out_step,
    out_head,
    lse_row,
    random_row,
    code_row,
    limit_row,
    start,
    queries,
    plain,
    keys,
    heads,
    reach,
    far,
    scale,
    threshold,
    kept_scale,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    Q_PLACES: tl.constexpr,
    K_PLACES: tl.constexpr,
    CODES: tl.constexpr,
    PLAIN: tl.constexpr,
    PLAIN_RAGGED: tl.constexpr,
    REST: tl.constexpr,
    REST_RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    NATIVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Strides are named by what a step along them is: a row of the batch, a position, a head. Values have the keys'.

    Args:
        start: of the call's queries, whose own tensors begin there; the log-sum-exp's do not.
        plain: so many of the keys are plain; the others have places if K_PLACES, codes if CODES.
        PLAIN, REST: there are keys of the kind; RAGGED: their last tile is not full.
    """
    q_first, program = which(queries, BLOCK_Q)
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    random_ptr += program.to(tl.int64) * random_row
    q_index = q_first + tl.arange(0, BLOCK_Q)
    q_inside = q_index < queries
    q = load_rows(q_ptr + row * q_row + head * q_head, q_index, q_step, q_inside, WIDTH, True)
    q_pos = places(q_at_ptr + row * queries, q_index, q_inside, Q_PLACES, True)
    limit = tl.zeros([BLOCK_Q], tl.int32)
    own = limit - 1
    if CODES and REST:
        limit = tl.load(limit_ptr + row * limit_row + q_index, mask=q_inside, other=0)
        own = tl.load(own_ptr + row * limit_row + q_index, mask=q_inside, other=-1)
    q_random = q_index
    if DROPOUT:
        q_random = tl.load(random_ptr + start + q_index, mask=q_inside, other=0)
    table_ptr += head * (2 * reach - 1) + reach - 1
    k_ptr += row * k_row + head * k_head
    v_ptr += row * k_row + head * k_head
    k_at_ptr += row * keys
    code_ptr += row * code_row
    random_ptr += lse_row

    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    mixed = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    if PLAIN:
        top, total, mixed = _walk(
            top, total, mixed, q, q_first, q_pos, limit, own, q_random, k_ptr, v_ptr, k_at_ptr, code_ptr, random_ptr,
            table_ptr, 0, plain, k_step, far, scale, threshold,
            WIDTH, BIAS, Q_PLACES, False, False, PLAIN_RAGGED, DROPOUT, PRECISION, NATIVE, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    if REST:
        top, total, mixed = _walk(
            top, total, mixed, q, q_first, q_pos, limit, own, q_random, k_ptr, v_ptr, k_at_ptr, code_ptr, random_ptr,
            table_ptr, plain, keys, k_step, far, scale, threshold,
            WIDTH, BIAS, Q_PLACES, K_PLACES, CODES, REST_RAGGED, DROPOUT, PRECISION, NATIVE, BLOCK_Q, BLOCK_K,
        )  # fmt: skip

    blind = total == 0.0
    mixed = mixed * (kept_scale / tl.where(blind, 1.0, total))[:, None]
    # A query that sees nothing gives 0, and so do all its gradients: exp2(score - inf) is 0.
    lse = tl.where(blind, float("inf"), top + tl.log2(tl.where(blind, 1.0, total)))
    out = out_ptr + row * out_row + head * out_head + q_index[:, None] * out_step + tl.arange(0, WIDTH)[None, :]
    tl.store(out, mixed.to(out_ptr.dtype.element_ty), mask=q_inside[:, None])
    tl.store(lse_ptr + program.to(tl.int64) * lse_row + start + q_index, lse, mask=q_inside)


@triton.jit
def _walk(
    top,
    total,
    mixed,
    q,
    q_first,
    q_pos,
    limit,
    own,
    q_random,
    k_ptr,
    v_ptr,
    k_at_ptr,
    code_ptr,
    random_ptr,
    table_ptr,
    begin,
    end,
    k_step,
    far,
    scale,
    threshold,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
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
    """The running softmax after the keys from `begin` to before `end`."""
    for k_first in range(begin, end, BLOCK_K):
        k_index = k_first + tl.arange(0, BLOCK_K)
        k_inside = k_index < end
        k = load_rows(k_ptr, k_index, k_step, k_inside, WIDTH, RAGGED)
        v = load_rows(v_ptr, k_index, k_step, k_inside, WIDTH, RAGGED)
        k_pos = places(k_at_ptr, k_index, k_inside, K_PLACES, RAGGED)
        common, column = common_and_rest(k_first, k_pos, BLOCK_K, K_PLACES)
        scores = biased(
            tl.dot(q, tl.trans(k), input_precision=PRECISION),
            scale,
            (table_ptr + common) - q_pos,
            column,
            k_first - q_first - (BLOCK_Q - 1),
            k_first - q_first + (BLOCK_K - 1),
            table_ptr,
            far,
            BIAS,
            not (Q_PLACES or K_PLACES),
            NATIVE,
        )
        code = k_index
        if CODES:
            code = load(code_ptr + k_index, k_inside, UNSEEN, RAGGED)
        scores = seen(scores, code[None, :], limit[:, None], own[:, None], k_inside[None, :], CODES, RAGGED)
        new_top = tl.maximum(top, tl.max(scores, 1))
        # Of a query that has seen nothing yet, the top is no number to subtract.
        shift = tl.where(new_top == float("-inf"), 0.0, new_top) if CODES else new_top
        shrink = tl.exp2(top - shift)
        weights = tl.exp2(scores - shift[:, None])
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT:
            k_random = load(random_ptr + k_index, k_inside, 0, RAGGED)
            weights, _ = dropped(weights, weights, q_random[:, None], k_random[None, :], threshold, NATIVE)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * shrink[:, None], input_precision=PRECISION)
        top = new_top
    return top, total, mixed
