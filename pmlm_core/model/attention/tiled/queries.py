"""Backward: delta, the inner product of a query's output and the gradient of that output; and the gradient of the
queries, a tile of queries over all keys, by the formulas of `keys`.

On the way the gradients of the scores between queries and keys far apart are summed: they have one bias to each side,
and `bias_shared` need not compute them again.

Source: Dao 2023, FlashAttention-2, algorithm 2.
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
def deltas(
    out_ptr,
    grad_ptr,
    delta_ptr,
    out_row,
    out_step,
    out_head,
    grad_row,
    grad_step,
    grad_head,
    queries,
    heads,
    WIDTH: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    first, program = which(queries, BLOCK_Q)
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    index = first + tl.arange(0, BLOCK_Q)
    inside = index < queries
    out = load_rows(out_ptr + row * out_row + head * out_head, index, out_step, inside, WIDTH, True)
    grad = load_rows(grad_ptr + row * grad_row + head * grad_head, index, grad_step, inside, WIDTH, True)
    delta = tl.sum(out.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(delta_ptr + program.to(tl.int64) * queries + index, delta, mask=inside)


@triton.jit
def queries_gradient(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    q_grad_ptr,
    lse_ptr,
    delta_ptr,
    table_ptr,
    q_at_ptr,
    k_at_ptr,
    code_ptr,
    limit_ptr,
    own_ptr,
    random_ptr,
    far_ptr,
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
    plain,
    keys,
    heads,
    reach,
    far,
    scale,
    score_scale,
    threshold,
    kept_scale,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    FAR: tl.constexpr,
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
    """A tile of queries of one head, over all keys; arguments as of `forward` and `keys_gradient`.

    Args:
        far_ptr: [rows, tiles of queries, heads, 2], the sums over the keys that lie at least `far` to the left and to
            the right, if FAR; positions are 0, 1, 2, … then.
    """
    q_first, program = which(queries, BLOCK_Q)
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    random_ptr += program.to(tl.int64) * random_row
    q_index = q_first + tl.arange(0, BLOCK_Q)
    q_inside = q_index < queries
    q = load_rows(q_ptr + row * q_row + head * q_head, q_index, q_step, q_inside, WIDTH, True)
    grad = load_rows(grad_ptr + row * grad_row + head * grad_head, q_index, grad_step, q_inside, WIDTH, True)
    lse = tl.load(lse_ptr + program.to(tl.int64) * lse_row + start + q_index, mask=q_inside, other=float("inf"))
    delta = tl.load(delta_ptr + program.to(tl.int64) * lse_row + start + q_index, mask=q_inside, other=0.0)
    q_pos = places(q_at_ptr + row * queries, q_index, q_inside, Q_PLACES, True)
    limit = q_index
    own = q_index
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

    q_grad = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    left = tl.zeros([BLOCK_Q], tl.float32)
    right = tl.zeros([BLOCK_Q], tl.float32)
    if PLAIN:
        q_grad, left, right = _walk(
            q_grad, left, right, q, grad, lse, delta, q_first, q_index, q_pos, limit, own, q_random, k_ptr, v_ptr,
            k_at_ptr, code_ptr, random_ptr, table_ptr, 0, plain, k_step, far, scale, threshold, kept_scale,
            WIDTH, BIAS, FAR, Q_PLACES, False, False, PLAIN_RAGGED, DROPOUT, PRECISION, NATIVE, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    if REST:
        q_grad, left, right = _walk(
            q_grad, left, right, q, grad, lse, delta, q_first, q_index, q_pos, limit, own, q_random, k_ptr, v_ptr,
            k_at_ptr, code_ptr, random_ptr, table_ptr, plain, keys, k_step, far, scale, threshold, kept_scale,
            WIDTH, BIAS, FAR, Q_PLACES, K_PLACES, CODES, REST_RAGGED, DROPOUT, PRECISION, NATIVE, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    at = row * made_row + head * made_head + q_index[:, None] * made_step + tl.arange(0, WIDTH)[None, :]
    tl.store(q_grad_ptr + at, (q_grad * score_scale).to(q_grad_ptr.dtype.element_ty), mask=q_inside[:, None])
    if FAR:
        tile = row * tl.cdiv(queries, BLOCK_Q) + q_first // BLOCK_Q
        far_ptr += (tile * heads + head) * 2
        tl.store(far_ptr, tl.sum(left, 0))
        tl.store(far_ptr + 1, tl.sum(right, 0))


@triton.jit
def _walk(
    q_grad,
    left,
    right,
    q,
    grad,
    lse,
    delta,
    q_first,
    q_index,
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
    kept_scale,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    FAR: tl.constexpr,
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
    """The gradient of the queries, and the sums of far scores' gradients, with what the keys from `begin` to before
    `end` add to them."""
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
        weights = tl.exp2(scores - lse[:, None])
        weights_grad = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        if DROPOUT:
            k_random = load(random_ptr + k_index, k_inside, 0, RAGGED)
            _, weights_grad = dropped(weights, weights_grad, q_random[:, None], k_random[None, :], threshold, NATIVE)
        scores_grad = weights * (weights_grad * kept_scale - delta[:, None])
        if FAR:
            distance = k_index[None, :] - q_index[:, None]
            if k_first - q_first - (BLOCK_Q - 1) <= -far:
                left += tl.sum(tl.where(distance <= -far, scores_grad, 0.0), 1)
            if k_first - q_first + (BLOCK_K - 1) >= far:
                right += tl.sum(tl.where(distance >= far, scores_grad, 0.0), 1)
        q_grad = tl.dot(scores_grad.to(k.dtype), k, q_grad, input_precision=PRECISION)
    return q_grad, left, right
