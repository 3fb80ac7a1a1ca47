"""Backward: the gradients of keys and values, a tile of keys over all queries; no atomics, so steps repeat bit by bit.

The probabilities P are computed anew from the log-sum-exp; the gradient of a score is P * (dP - delta).

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
def keys_gradient(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    k_grad_ptr,
    v_grad_ptr,
    lse_ptr,
    delta_ptr,
    table_ptr,
    q_at_ptr,
    k_at_ptr,
    code_ptr,
    limit_ptr,
    own_ptr,
    random_ptr,
    more_at_ptr,
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
    more_start,
    more_queries,
    begin,
    end,
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
    Q_PLACES: tl.constexpr,
    K_PLACES: tl.constexpr,
    CODES: tl.constexpr,
    Q_RAGGED: tl.constexpr,
    RAGGED: tl.constexpr,
    ADD: tl.constexpr,
    MORE: tl.constexpr,
    MORE_PLACES: tl.constexpr,
    MORE_RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    NATIVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of the keys from `begin` to before `end` of one head, over all queries.

    Tiles are [N, M]: keys first, which is how the products want them.

    Args:
        made_row, made_step, made_head: strides of the gradients of keys and values.
        scale: E ** -0.5 * log2(e); score_scale: E ** -0.5.
        Q_RAGGED, RAGGED: the last tile of queries, of keys, is not full.
        ADD: another call's gradient is there already; this one is added.
        MORE: these keys are plain, and another call's queries, `more_queries` from `more_start` on, see them too. Its
            gradient is added before it is rounded, and nothing is written twice.
    """
    k_first, program = which(end - begin, BLOCK_K)
    k_first += begin
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    random_ptr += program.to(tl.int64) * random_row
    k_index = k_first + tl.arange(0, BLOCK_K)
    k_inside = k_index < end
    k = load_rows(k_ptr + row * k_row + head * k_head, k_index, k_step, k_inside, WIDTH, RAGGED)
    v = load_rows(v_ptr + row * k_row + head * k_head, k_index, k_step, k_inside, WIDTH, RAGGED)
    k_pos = places(k_at_ptr + row * keys, k_index, k_inside, K_PLACES, RAGGED)
    code = k_index
    if CODES:
        code = tl.load(code_ptr + row * code_row + k_index, mask=k_inside, other=UNSEEN)
    k_random = k_index
    if DROPOUT:
        k_random = tl.load(random_ptr + lse_row + k_index, mask=k_inside, other=0)
    table_ptr += head * (2 * reach - 1) + reach - 1
    q_ptr += row * q_row + head * q_head
    grad_ptr += row * grad_row + head * grad_head
    limit_ptr += row * limit_row
    own_ptr += row * limit_row
    random_ptr += start
    lse_ptr += program.to(tl.int64) * lse_row + start
    delta_ptr += program.to(tl.int64) * lse_row + start

    k_grad = tl.zeros([BLOCK_K, WIDTH], tl.float32)
    v_grad = tl.zeros([BLOCK_K, WIDTH], tl.float32)
    k_grad, v_grad = _walk(
        k_grad, v_grad, k, v, k_first, k_pos, k_inside, code, k_random, q_ptr, grad_ptr, lse_ptr, delta_ptr,
        q_at_ptr + row * queries, limit_ptr, own_ptr, random_ptr, table_ptr, queries, q_step, grad_step, far, scale,
        threshold, kept_scale, WIDTH, BIAS, Q_PLACES, K_PLACES, CODES, Q_RAGGED, RAGGED, DROPOUT, PRECISION, NATIVE,
        BLOCK_Q, BLOCK_K,
    )  # fmt: skip
    if MORE:
        away = more_start - start
        k_grad, v_grad = _walk(
            k_grad, v_grad, k, v, k_first, k_pos, k_inside, code, k_random, q_ptr + away * q_step,
            grad_ptr + away * grad_step, lse_ptr + away, delta_ptr + away, more_at_ptr + row * more_queries, limit_ptr,
            own_ptr, random_ptr + away, table_ptr, more_queries, q_step, grad_step, far, scale, threshold, kept_scale,
            WIDTH, BIAS, MORE_PLACES, False, False, MORE_RAGGED, RAGGED, DROPOUT, PRECISION, NATIVE, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    k_grad *= score_scale
    v_grad *= kept_scale
    at = row * made_row + head * made_head + k_index[:, None] * made_step + tl.arange(0, WIDTH)[None, :]
    if ADD:
        k_grad += tl.load(k_grad_ptr + at, mask=k_inside[:, None], other=0.0).to(tl.float32)
        v_grad += tl.load(v_grad_ptr + at, mask=k_inside[:, None], other=0.0).to(tl.float32)
    tl.store(k_grad_ptr + at, k_grad.to(k_grad_ptr.dtype.element_ty), mask=k_inside[:, None])
    tl.store(v_grad_ptr + at, v_grad.to(v_grad_ptr.dtype.element_ty), mask=k_inside[:, None])


@triton.jit
def _walk(
    k_grad,
    v_grad,
    k,
    v,
    k_first,
    k_pos,
    k_inside,
    code,
    k_random,
    q_ptr,
    grad_ptr,
    lse_ptr,
    delta_ptr,
    q_at_ptr,
    limit_ptr,
    own_ptr,
    random_ptr,
    table_ptr,
    queries,
    q_step,
    grad_step,
    far,
    scale,
    threshold,
    kept_scale,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    Q_PLACES: tl.constexpr,
    K_PLACES: tl.constexpr,
    CODES: tl.constexpr,
    Q_RAGGED: tl.constexpr,
    RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    NATIVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The gradients of keys and values with what all of these queries add to them."""
    for q_first in range(0, queries, BLOCK_Q):
        q_index = q_first + tl.arange(0, BLOCK_Q)
        q_inside = q_index < queries
        q = load_rows(q_ptr, q_index, q_step, q_inside, WIDTH, Q_RAGGED)
        grad = load_rows(grad_ptr, q_index, grad_step, q_inside, WIDTH, Q_RAGGED)
        lse = load(lse_ptr + q_index, q_inside, float("inf"), Q_RAGGED)
        delta = load(delta_ptr + q_index, q_inside, 0.0, Q_RAGGED)
        q_pos = places(q_at_ptr, q_index, q_inside, Q_PLACES, Q_RAGGED)
        common, column = common_and_rest(q_first, q_pos, BLOCK_Q, Q_PLACES)
        scores = biased(
            tl.dot(k, tl.trans(q), input_precision=PRECISION),
            scale,
            (table_ptr - common) + k_pos,
            -column,
            k_first - q_first - (BLOCK_Q - 1),
            k_first - q_first + (BLOCK_K - 1),
            table_ptr,
            far,
            BIAS,
            not (Q_PLACES or K_PLACES),
            NATIVE,
        )
        limit = q_index
        own = q_index
        if CODES:
            limit = load(limit_ptr + q_index, q_inside, 0, Q_RAGGED)
            own = load(own_ptr + q_index, q_inside, -1, Q_RAGGED)
        scores = seen(scores, code[:, None], limit[None, :], own[None, :], k_inside[:, None], CODES, RAGGED)
        weights = tl.exp2(scores - lse[None, :])
        weights_grad = tl.dot(v, tl.trans(grad), input_precision=PRECISION)
        mixed = weights
        if DROPOUT:
            q_random = load(random_ptr + q_index, q_inside, 0, Q_RAGGED)
            mixed, weights_grad = dropped(
                weights, weights_grad, q_random[None, :], k_random[:, None], threshold, NATIVE
            )
        v_grad = tl.dot(mixed.to(grad.dtype), grad, v_grad, input_precision=PRECISION)
        scores_grad = weights * (weights_grad * kept_scale - delta[None, :])
        k_grad = tl.dot(scores_grad.to(q.dtype), q, k_grad, input_precision=PRECISION)
    return k_grad, v_grad
