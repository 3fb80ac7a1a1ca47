"""Gradients of a tile of scores, and their sums by bin of the relative bias."""

import triton
import triton.language as tl

from pmlm_core.model.attention.tiled.parts import biased, dropped, seen

AT_ONCE: tl.constexpr = tl.constexpr(4)
"""Bins whose sums are made together: one after the other, each would wait for the lanes of a warp to meet."""


@triton.jit
def binned(scores_grad, distance, first_bin, last_bin, edge_ptr, BINS: tl.constexpr):
    """Sums of a tile from which those by bin follow (`relbias.by_bin`), two of [BINS].

    Of every bin in the tile's range but its first, the sum of what lies at or beyond its edge; at the place of the
    first bin, the sum of all.
    """
    beyond = tl.zeros([BINS], tl.float32)
    bins = tl.arange(0, BINS)
    for back in range(0, last_bin - first_bin, AT_ONCE):
        for each in tl.static_range(AT_ONCE):
            at = last_bin - back - each
            edge = tl.load(edge_ptr + at, mask=at > first_bin, other=2**30)
            from_here = tl.sum(tl.where(distance >= edge, scores_grad, 0.0))
            beyond += tl.where(bins == at, from_here, 0.0)
    return beyond, tl.where(bins == first_bin, tl.sum(scores_grad), 0.0)


@triton.jit
def scores_gradient(
    q,
    k,
    v,
    grad,
    lse,
    delta,
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
    CODES: tl.constexpr,
    RAGGED: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Gradient of a tile of scores, [M, N]; arguments as of `biased` and `seen`, vectors without their second axis."""
    scores = biased(
        tl.dot(q, tl.trans(k), input_precision=PRECISION),
        scale,
        row_at,
        column,
        first_distance,
        last_distance,
        table_ptr,
        far,
        True,
        True,
        NATIVE,
    )
    scores = seen(scores, code[None, :], limit[:, None], own[:, None], k_inside[None, :], CODES, RAGGED)
    weights_grad = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
    if DROPOUT:
        _, weights_grad = dropped(weights_grad, weights_grad, q_random[:, None], k_random[None, :], threshold, NATIVE)
    return tl.exp2(scores - lse[:, None]) * (weights_grad * kept_scale - delta[:, None])
