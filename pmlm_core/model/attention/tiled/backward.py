"""Backward: one kernel for the gradients of keys and values, one for those of queries; no atomics, so that a step can
be repeated bit by bit.

Both compute the probabilities anew from the log-sum-exp. With P the probabilities, the gradient of a score is
P * (dP - delta), where delta is the inner product of the query's output and the gradient of that output.

Source: Dao 2023, FlashAttention-2, algorithm 2.
"""

import triton
import triton.language as tl

from pmlm_core.model.attention.tiled.parts import UNSEEN, kept, load_rows, places, ruled, span, which


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
    out = load_rows(out_ptr + row * out_row + head * out_head, index, out_step, inside, WIDTH)
    grad = load_rows(grad_ptr + row * grad_row + head * grad_head, index, grad_step, inside, WIDTH)
    delta = tl.sum(out.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(delta_ptr + program.to(tl.int64) * queries + index, delta, mask=inside)


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
    bin_ptr,
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
    scale,
    score_scale,
    threshold,
    kept_scale,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    Q_PLACES: tl.constexpr,
    K_PLACES: tl.constexpr,
    CODES: tl.constexpr,
    RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    ADD: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of keys of one head, over all queries; tiles are [N, M]: keys first, which is how the products want them.

    Args:
        made_row, made_step, made_head: strides of the gradients of keys and values.
        scale: E ** -0.5 * log2(e); score_scale: E ** -0.5.
        ADD: another call's gradient is there already; this one is added.
    """
    k_first, program = which(keys, BLOCK_K)
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    random_ptr += program.to(tl.int64) * random_row
    k_index = k_first + tl.arange(0, BLOCK_K)
    k_inside = k_index < keys
    k = load_rows(k_ptr + row * k_row + head * k_head, k_index, k_step, k_inside, WIDTH)
    v = load_rows(v_ptr + row * k_row + head * k_head, k_index, k_step, k_inside, WIDTH)
    k_pos = places(k_at_ptr + row * keys, k_index, keys - 1, K_PLACES)
    least_k, most_k = span(k_pos, k_first, reach, BLOCK_K, K_PLACES)
    code = tl.where(k_inside, 0, UNSEEN)
    if CODES:
        code = tl.load(code_ptr + row * code_row + k_index, mask=k_inside, other=UNSEEN)
    if DROPOUT:
        k_random = tl.load(random_ptr + lse_row + k_index, mask=k_inside, other=0)[:, None]
    table_ptr += head * (2 * reach - 1) + reach - 1
    bin_ptr += reach - 1
    q_ptr += row * q_row + head * q_head
    grad_ptr += row * grad_row + head * grad_head
    q_at_ptr += row * queries
    limit_ptr += row * limit_row
    own_ptr += row * limit_row
    lse_ptr += program.to(tl.int64) * lse_row + start
    delta_ptr += program.to(tl.int64) * lse_row + start

    k_grad = tl.zeros([BLOCK_K, WIDTH], tl.float32)
    v_grad = tl.zeros([BLOCK_K, WIDTH], tl.float32)
    for q_first in range(0, queries, BLOCK_Q):
        q_index = q_first + tl.arange(0, BLOCK_Q)
        q_inside = q_index < queries
        q = load_rows(q_ptr, q_index, q_step, q_inside, WIDTH)
        grad = load_rows(grad_ptr, q_index, grad_step, q_inside, WIDTH)
        lse = tl.load(lse_ptr + q_index, mask=q_inside, other=float("inf"))
        delta = tl.load(delta_ptr + q_index, mask=q_inside, other=0.0)
        limit = tl.zeros([BLOCK_Q], tl.int32)
        own = limit - 1
        if CODES:
            limit = tl.load(limit_ptr + q_index, mask=q_inside, other=0)
            own = tl.load(own_ptr + q_index, mask=q_inside, other=-1)
        q_pos = places(q_at_ptr, q_index, queries - 1, Q_PLACES)
        least_q, most_q = span(q_pos, q_first, reach, BLOCK_Q, Q_PLACES)
        scores = ruled(
            tl.dot(k, tl.trans(q), input_precision=PRECISION),
            scale,
            q_pos[None, :],
            k_pos[:, None],
            least_k - most_q,
            most_k - least_q,
            code[:, None],
            limit[None, :],
            own[None, :],
            table_ptr,
            bin_ptr,
            reach,
            BIAS,
            CODES or RAGGED,
        )
        weights = tl.exp2(scores - lse[None, :])
        weights_grad = tl.dot(v, tl.trans(grad), input_precision=PRECISION)
        dropped = weights
        if DROPOUT:
            q_random = tl.load(random_ptr + start + q_index, mask=q_inside, other=0)[None, :]
            keep = kept(q_random, k_random, threshold)
            dropped = tl.where(keep, weights * kept_scale, 0.0)
            weights_grad = tl.where(keep, weights_grad * kept_scale, 0.0)
        v_grad = tl.dot(dropped.to(grad.dtype), grad, v_grad, input_precision=PRECISION)
        scores_grad = weights * (weights_grad - delta[None, :])
        k_grad = tl.dot(scores_grad.to(q.dtype), q, k_grad, input_precision=PRECISION)
    k_grad *= score_scale
    at = row * made_row + head * made_head + k_index[:, None] * made_step + tl.arange(0, WIDTH)[None, :]
    if ADD:
        k_grad += tl.load(k_grad_ptr + at, mask=k_inside[:, None], other=0.0).to(tl.float32)
        v_grad += tl.load(v_grad_ptr + at, mask=k_inside[:, None], other=0.0).to(tl.float32)
    tl.store(k_grad_ptr + at, k_grad.to(k_grad_ptr.dtype.element_ty), mask=k_inside[:, None])
    tl.store(v_grad_ptr + at, v_grad.to(v_grad_ptr.dtype.element_ty), mask=k_inside[:, None])


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
    bin_ptr,
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
    scale,
    score_scale,
    threshold,
    kept_scale,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    Q_PLACES: tl.constexpr,
    K_PLACES: tl.constexpr,
    CODES: tl.constexpr,
    RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of queries of one head, over all keys; arguments as of `keys_gradient`."""
    q_first, program = which(queries, BLOCK_Q)
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    random_ptr += program.to(tl.int64) * random_row
    q_index = q_first + tl.arange(0, BLOCK_Q)
    q_inside = q_index < queries
    q = load_rows(q_ptr + row * q_row + head * q_head, q_index, q_step, q_inside, WIDTH)
    grad = load_rows(grad_ptr + row * grad_row + head * grad_head, q_index, grad_step, q_inside, WIDTH)
    lse = tl.load(lse_ptr + program.to(tl.int64) * lse_row + start + q_index, mask=q_inside, other=float("inf"))
    delta = tl.load(delta_ptr + program.to(tl.int64) * lse_row + start + q_index, mask=q_inside, other=0.0)
    q_pos = places(q_at_ptr + row * queries, q_index, queries - 1, Q_PLACES)
    least_q, most_q = span(q_pos, q_first, reach, BLOCK_Q, Q_PLACES)
    limit = tl.zeros([BLOCK_Q], tl.int32)
    own = limit - 1
    if CODES:
        limit = tl.load(limit_ptr + row * limit_row + q_index, mask=q_inside, other=0)
        own = tl.load(own_ptr + row * limit_row + q_index, mask=q_inside, other=-1)
    if DROPOUT:
        q_random = tl.load(random_ptr + start + q_index, mask=q_inside, other=0)[:, None]
    table_ptr += head * (2 * reach - 1) + reach - 1
    bin_ptr += reach - 1
    k_ptr += row * k_row + head * k_head
    v_ptr += row * k_row + head * k_head
    k_at_ptr += row * keys
    code_ptr += row * code_row

    q_grad = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    for k_first in range(0, keys, BLOCK_K):
        k_index = k_first + tl.arange(0, BLOCK_K)
        k_inside = k_index < keys
        k = load_rows(k_ptr, k_index, k_step, k_inside, WIDTH)
        v = load_rows(v_ptr, k_index, k_step, k_inside, WIDTH)
        code = tl.where(k_inside, 0, UNSEEN)
        if CODES:
            code = tl.load(code_ptr + k_index, mask=k_inside, other=UNSEEN)
        k_pos = places(k_at_ptr, k_index, keys - 1, K_PLACES)
        least_k, most_k = span(k_pos, k_first, reach, BLOCK_K, K_PLACES)
        scores = ruled(
            tl.dot(q, tl.trans(k), input_precision=PRECISION),
            scale,
            q_pos[:, None],
            k_pos[None, :],
            least_k - most_q,
            most_k - least_q,
            code[None, :],
            limit[:, None],
            own[:, None],
            table_ptr,
            bin_ptr,
            reach,
            BIAS,
            CODES or RAGGED,
        )
        weights = tl.exp2(scores - lse[:, None])
        weights_grad = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        if DROPOUT:
            k_random = tl.load(random_ptr + lse_row + k_index, mask=k_inside, other=0)[None, :]
            weights_grad = tl.where(kept(q_random, k_random, threshold), weights_grad * kept_scale, 0.0)
        scores_grad = weights * (weights_grad - delta[:, None])
        q_grad = tl.dot(scores_grad.to(k.dtype), k, q_grad, input_precision=PRECISION)
    at = row * made_row + head * made_head + q_index[:, None] * made_step + tl.arange(0, WIDTH)[None, :]
    tl.store(q_grad_ptr + at, (q_grad * score_scale).to(q_grad_ptr.dtype.element_ty), mask=q_inside[:, None])
