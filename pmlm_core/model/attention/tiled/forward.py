"""Forward: each program takes a tile of queries of one head and walks over the keys with a running softmax.

Source: Dao 2023, FlashAttention-2, algorithm 1.
"""

import triton
import triton.language as tl

from pmlm_core.model.attention.tiled.parts import UNSEEN, kept, load_rows, places, ruled, span, which


@triton.jit
def forward(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
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
    out_row,
    out_step,
    out_head,
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
    """Strides are named by what a step along them is: a row of the batch, a position, a head. Values have the keys'.

    Args:
        start: of the call's queries, whose own tensors begin there; the log-sum-exp's do not.
        RAGGED: the last tile of keys is not full.
    """
    q_first, program = which(queries, BLOCK_Q)
    row, head = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    random_ptr += program.to(tl.int64) * random_row
    q_index = q_first + tl.arange(0, BLOCK_Q)
    q_inside = q_index < queries
    q = load_rows(q_ptr + row * q_row + head * q_head, q_index, q_step, q_inside, WIDTH)
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

    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    mixed = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    for k_first in range(0, keys, BLOCK_K):
        k_index = k_first + tl.arange(0, BLOCK_K)
        k_inside = k_index < keys
        k = load_rows(k_ptr, k_index, k_step, k_inside, WIDTH)
        v = load_rows(v_ptr, k_index, k_step, k_inside, WIDTH)
        k_pos = places(k_at_ptr, k_index, keys - 1, K_PLACES)
        least_k, most_k = span(k_pos, k_first, reach, BLOCK_K, K_PLACES)
        code = tl.where(k_inside, 0, UNSEEN)
        if CODES:
            code = tl.load(code_ptr + k_index, mask=k_inside, other=UNSEEN)
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
        new_top = tl.maximum(top, tl.max(scores, 1))
        # Of a query that has seen nothing yet, the top is no number to subtract.
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        shrink = tl.exp2(top - shift)
        weights = tl.exp2(scores - shift[:, None])
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT:
            k_random = tl.load(random_ptr + lse_row + k_index, mask=k_inside, other=0)[None, :]
            weights = tl.where(kept(q_random, k_random, threshold), weights, 0.0)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(weights.to(v.dtype), v, mixed, input_precision=PRECISION)
        top = new_top

    blind = total == 0.0
    mixed = mixed * (kept_scale / tl.where(blind, 1.0, total))[:, None]
    # A query that sees nothing gives 0, and so do all its gradients: exp2(score - inf) is 0.
    lse = tl.where(blind, float("inf"), top + tl.log2(tl.where(blind, 1.0, total)))
    out = out_ptr + row * out_row + head * out_head + q_index[:, None] * out_step + tl.arange(0, WIDTH)[None, :]
    tl.store(out, mixed.to(out_ptr.dtype.element_ty), mask=q_inside[:, None])
    tl.store(lse_ptr + program.to(tl.int64) * lse_row + start + q_index, lse, mask=q_inside)
