"""Softmax with dropout and its gradient as single passes over one row of the batch, for attention on a CPU.

A probability that dropout leaves out keeps its size and carries a minus sign, so that one array holds probabilities and
mask; the mask is never stored, read or widened by itself.
"""

import numpy as np
from torch import Tensor

from pmlm_core.model.loops import (
    compiled,
    exp,
    get,
    largest,
    number,
    numbers,
    put,
    random_words,
    share_rows,
    threshold,
)


def softmax_(
    scores_HQS: Tensor,
    kept_HQS: Tensor,
    bias_HQS: Tensor | None,
    *,
    scale: float,
    dropout_p: float,
    seed: int,
    row: int,
) -> None:
    """Turn products of queries and keys into probabilities, in place, those left out by dropout negative; into
    `kept_HQS`, those that stay.

    Args:
        kept_HQS: not touched without dropout. What stays is not scaled up.
        bias_HQS: added to the scaled products; its first dimension may be 1.
        seed, row: name the mask: of row `row` of a batch.
    """
    heads, queries, keys = scores_HQS.shape
    first = row * heads * queries * words_of(keys)
    scores, kept = numbers(scores_HQS), numbers(kept_HQS)
    bias, bias_rows = scores, 0
    if bias_HQS is not None:
        bias_HQS = bias_HQS.expand(bias_HQS.shape[0], queries, keys)
        if bias_HQS.shape[0] not in (1, heads):
            raise ValueError(f"a bias of {bias_HQS.shape[0]} heads is added to the scores of {heads}")
        bias, bias_rows = numbers(bias_HQS.contiguous()), bias_HQS.shape[0] * queries
    which = threshold(dropout_p), np.uint64(seed), np.uint64(first)
    scaled = number(scores_HQS.dtype, scale)

    def work(start: int, stop: int) -> None:
        _softmax(scores, kept, bias, bias_rows, start, stop, keys, scaled, *which)

    share_rows(work, heads * queries, keys)


def softmax_backward_(
    grad_HQS: Tensor, signed_HQS: Tensor, kept_HQS: Tensor, bias_grad_HQS: Tensor | None, dropout_p: float
) -> None:
    """Turn the gradient of the kept probabilities into that of the scores, in place.

    Args:
        signed_HQS: what `softmax_` made of the scores.
        kept_HQS: gets the probabilities that stay, as in `softmax_`; not touched without dropout.
        bias_grad_HQS: has the gradient added to it, unless it is None.
    """
    heads, queries, keys = grad_HQS.shape
    arrays = numbers(grad_HQS), numbers(signed_HQS), numbers(kept_HQS)
    sums = numbers(grad_HQS if bias_grad_HQS is None else bias_grad_HQS)
    scale = number(grad_HQS.dtype, 1 / (1 - dropout_p))
    flags = dropout_p > 0, bias_grad_HQS is not None
    share_rows(lambda start, stop: _backward(*arrays, sums, start, stop, keys, scale, *flags), heads * queries, keys)


def words_of(keys: int) -> int:
    """Random words of 64 bits that a row of probabilities takes, 16 bits each."""
    return -(-keys // 4)


@compiled
def _softmax(scores, kept, bias, bias_rows, start, stop, keys, scale, limit, seed, first):  # type: ignore[no-untyped-def]
    words = np.empty((keys + 3) // 4, np.uint64)
    drawn = words.view(np.uint16)
    zero, one = scale - scale, scale / scale
    weights = np.full(keys, zero)
    for r in range(start, stop):
        row = scores[r * keys : (r + 1) * keys]
        if bias_rows:
            at = r % bias_rows
            added = bias[at * keys : (at + 1) * keys]
            for j in range(len(row)):
                weights[j] = get(row, j) * scale + get(added, j)
        else:
            for j in range(len(row)):
                weights[j] = get(row, j) * scale
        top = largest(weights)
        total = zero
        for j in range(len(row)):
            weight = exp(weights[j] - top)
            weights[j] = weight
            total += weight
        share = one / total
        if limit == 0:
            for j in range(len(row)):
                put(row, j, weights[j] * share)
            continue
        out = kept[r * keys : (r + 1) * keys]
        random_words(words, seed, first + np.uint64(r * len(words)))
        for j in range(len(row)):
            weight = weights[j] * share
            left_out = np.uint32(drawn[j]) < limit
            signed = -weight if left_out else weight
            stays = zero if left_out else weight
            put(row, j, signed)
            put(out, j, stays)


@compiled
def _backward(grad, signed, kept, sums, start, stop, keys, scale, drops, adds):  # type: ignore[no-untyped-def]
    zero = scale - scale
    for r in range(start, stop):
        row, weights = grad[r * keys : (r + 1) * keys], signed[r * keys : (r + 1) * keys]
        total = zero
        for j in range(len(row)):
            weight = get(weights, j)
            total += (zero if weight < zero else weight) * get(row, j)
        if drops:
            out = kept[r * keys : (r + 1) * keys]
            for j in range(len(row)):
                weight = get(weights, j)
                stays = zero if weight < zero else weight
                put(out, j, stays)
        for j in range(len(row)):
            weight = get(weights, j)
            kept_grad = zero if weight < zero else get(row, j)
            put(row, j, abs(weight) * (kept_grad - total) * scale)
        if adds:
            added = sums[r * keys : (r + 1) * keys]
            for j in range(len(row)):
                put(added, j, get(added, j) + get(row, j))
