"""Cross-entropy of a slice of logits and its gradient by a Triton kernel: each row is read and written once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmlm_core.model.device import current

_BLOCK = 32768
"""Most words of a row that a program holds in its registers."""


def cross_entropy_(
    logits_RV: Tensor, labels_R: Tensor, ignored: int, smoothing: float, scale_R: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cross_entropy_rows.cross_entropy_`, on a GPU: losses are fp32, and that of a label out of range is NaN."""
    rows, classes = logits_RV.shape
    block = min(_BLOCK, triton.next_power_of_2(classes))
    losses_R = torch.empty(rows, dtype=torch.float32, device=logits_RV.device)
    right_R = torch.empty(rows, dtype=torch.int64, device=logits_RV.device)
    with current(logits_RV):
        _cross_entropy[(rows,)](
            logits_RV,
            labels_R.contiguous(),
            logits_RV if scale_R is None else scale_R.contiguous(),
            losses_R,
            right_R,
            logits_RV.stride(0),
            classes,
            ignored,
            smoothing,
            SCALED=scale_R is not None,
            SMOOTHED=smoothing > 0,
            WHOLE=classes <= block,
            BLOCK=block,
            num_warps=min(16, max(4, block // 2048)),
        )
    return losses_R, right_R, logits_RV.sum(0, dtype=torch.float32)


@triton.jit
def _cross_entropy(  # type: ignore[no-untyped-def]
    logits_ptr,
    labels_ptr,
    scale_ptr,
    losses_ptr,
    right_ptr,
    row_stride,
    classes,
    ignored,
    smoothing,
    SCALED: tl.constexpr,
    SMOOTHED: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row of logits, which becomes its gradient.

    Args:
        WHOLE: it has room in one block, and stays in registers from its one reading on.
    """
    at = tl.program_id(0).to(tl.int64)
    logits_ptr += at * row_stride
    label = tl.load(labels_ptr + at)
    lane = tl.arange(0, BLOCK)
    if WHOLE:
        row = tl.load(logits_ptr + lane, mask=lane < classes, other=float("-inf")).to(tl.float32)
        top = tl.max(row, 0)
        guess = tl.min(tl.where(row == top, lane, 2**31 - 1), 0)
        total = tl.exp(row - top)
        plain = tl.where(lane < classes, row, 0.0)
    else:
        row = tl.zeros([BLOCK], tl.float32)
        # Every lane has sums of its own, so that lanes meet for the largest number of a block only.
        best = tl.full([BLOCK], float("-inf"), tl.float32)
        where = tl.zeros([BLOCK], tl.int32)
        total = tl.zeros([BLOCK], tl.float32)
        plain = tl.zeros([BLOCK], tl.float32)
        top = float("-inf")
        for first in range(0, classes, BLOCK):
            inside = first + lane < classes
            x = tl.load(logits_ptr + first + lane, mask=inside, other=float("-inf")).to(tl.float32)
            new_top = tl.maximum(top, tl.max(x, 0))
            total = total * tl.exp(top - new_top) + tl.exp(x - new_top)
            top = new_top
            where = tl.where(x > best, first + lane, where)
            best = tl.maximum(best, x)
            if SMOOTHED:
                plain += tl.where(inside, x, 0.0)
        guess = tl.min(tl.where(best == top, where, 2**31 - 1), 0)
    log_sum = top + tl.log(tl.sum(total, 0))

    used = label != ignored
    known = used & (label >= 0) & (label < classes)
    expected = tl.load(logits_ptr + label, mask=known, other=float("nan")).to(tl.float32) - log_sum
    factor = tl.where(used, 1.0, 0.0)
    if SCALED:
        factor *= tl.load(scale_ptr + at).to(tl.float32)
    spread = 0.0
    if SMOOTHED:
        spread = smoothing / classes
        expected = (1 - smoothing) * expected + smoothing * (tl.sum(plain, 0) / classes - log_sum)
    tl.store(losses_ptr + at, tl.where(used, -expected, 0.0))
    tl.store(right_ptr + at, (used & (guess == label)).to(tl.int64))
    # The label's own logit has been read: nobody writes before all have.
    tl.debug_barrier()
    for first in range(0, classes, BLOCK):
        inside = first + lane < classes
        x = row
        if not WHOLE:
            x = tl.load(logits_ptr + first + lane, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.exp(x - log_sum) - spread - tl.where(first + lane == label, 1 - smoothing, 0.0)
        tl.store(logits_ptr + first + lane, (gradient * factor).to(logits_ptr.dtype.element_ty), mask=inside)
