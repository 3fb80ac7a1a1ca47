"""Cross-entropy of a slice of logits and its gradient as one pass over each row, for the output layer on a CPU."""

import numpy as np
import torch
from torch import Tensor

from pmlm_core.model.loops import compiled, exp, get, largest, numbers, put, share_rows


def cross_entropy_(
    logits_RV: Tensor, labels_R: Tensor, ignored: int, smoothing: float, scale_R: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn logits into the gradient of the summed cross-entropies, in place.

    Args:
        labels_R: class of each row, int64, or `ignored` for a row that has no loss and no gradient.
        smoothing: share of the target distribution that is spread evenly over the V classes.
        scale_R: weight of every row's loss in the gradient; None for 1.

    Returns:
        (losses, float64 [R]; whether the largest logit, and the first of equal ones, is at the label, int64 [R]; the
        gradients summed over the rows, [V], fp32 or better).

    Raises:
        IndexError: a label that is no class.
    """
    rows, classes = logits_RV.shape
    logits, labels = numbers(logits_RV), labels_R.contiguous().numpy()
    if len(labels) != rows:
        raise IndexError(f"{rows} rows of logits have {len(labels)} labels")
    if wrong := labels[((labels < 0) | (labels >= classes)) & (labels != ignored)].tolist():
        raise IndexError(f"label {wrong[0]} is not in the vocabulary of {classes}")
    losses, right = np.zeros(rows), np.zeros(rows, np.int64)
    precise = np.float64 if logits_RV.dtype is torch.float64 else np.float32

    def work(start: int, stop: int) -> np.ndarray:
        added = np.zeros(classes, precise)
        _cross_entropy(logits, labels, start, stop, classes, ignored, precise(smoothing), losses, right, added)
        return added

    sums = share_rows(work, rows, classes)
    if scale_R is not None:
        logits_RV.mul_(scale_R[:, None])
        return (
            torch.from_numpy(losses),
            torch.from_numpy(right),
            logits_RV.sum(0, dtype=torch.promote_types(logits_RV.dtype, torch.float32)),
        )
    total = sums[0] if len(sums) == 1 else np.sum(sums, axis=0)
    return torch.from_numpy(losses), torch.from_numpy(right), torch.from_numpy(total)


@compiled
def _cross_entropy(logits, labels, start, stop, classes, ignored, smoothing, losses, right, added):  # type: ignore[no-untyped-def]
    zero = smoothing - smoothing
    one = np.exp(zero)  # a literal would make float64 of it
    even = smoothing / added.dtype.type(classes)
    weights = np.empty_like(added)
    for r in range(start, stop):
        row = logits[r * classes : (r + 1) * classes]
        label = labels[r]
        if label == ignored:
            row[:] = 0
            continue
        top = largest(row)
        at_label = get(row, label)
        total, sum_of_logits = zero, zero
        for j in range(len(row)):
            logit = get(row, j)
            weight = exp(logit - top)
            weights[j] = weight
            total += weight
            sum_of_logits += logit - top
        log_total = np.log(total)
        losses[r] = log_total - (1 - smoothing) * (at_label - top)
        if smoothing > zero:  # else a logit of -inf would make NaN of 0 * -inf
            losses[r] -= even * sum_of_logits
        if at_label >= top:
            right[r] = 1
            for j in range(label):
                if get(row, j) >= top:
                    right[r] = 0
                    break
        share = one / total
        for j in range(len(row)):
            weights[j] = weights[j] * share - even
        weights[label] -= 1 - smoothing
        for j in range(len(row)):
            put(row, j, weights[j])
            added[j] += weights[j]
