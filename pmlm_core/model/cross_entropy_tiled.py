"""Cross-entropy of a slice of logits and its gradient by a Triton kernel: a row is read, and read again and written
while it is in the GPU's cache. Several rows share a multiprocessor, so that it need not wait for memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmlm_core.model.device import current

BLOCK = 2048
"""Most words of a row that a program has at hand."""
_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


def cross_entropy_(
    logits_RV: Tensor, labels_R: Tensor, ignored: int, smoothing: float, scale_R: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cross_entropy_rows.cross_entropy_`, on a GPU: losses are fp32, and that of a label out of range is NaN."""
    rows, classes = logits_RV.shape
    block = min(BLOCK, triton.next_power_of_2(classes))
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
            BLOCK=block,
            num_warps=max(1, block // 256),
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
    BLOCK: tl.constexpr,
):
    """A row of logits, which becomes its gradient.

    Its last block is apart: only there loads need a mask, and with one they fetch number by number.
    """
    at = tl.program_id(0).to(tl.int64)
    logits_ptr += at * row_stride
    label = tl.load(labels_ptr + at)
    whole = classes // BLOCK * BLOCK
    top = tl.full([], float("-inf"), tl.float32)
    # Every lane has sums of its own, so that lanes meet for the largest number of a block only.
    total = tl.zeros([BLOCK], tl.float32)
    plain = tl.zeros([BLOCK], tl.float32)
    for first in range(0, whole, BLOCK):
        top, total, plain = _sums(top, total, plain, logits_ptr, first, classes, False, SMOOTHED, BLOCK)
    if whole < classes:
        top, total, plain = _sums(top, total, plain, logits_ptr, whole, classes, True, SMOOTHED, BLOCK)
    log_sum = top + tl.log(tl.sum(total, 0))

    used = label != ignored
    known = used & (label >= 0) & (label < classes)
    own = tl.load(logits_ptr + label, mask=known, other=float("nan")).to(tl.float32)
    factor = tl.where(used, 1.0, 0.0)
    if SCALED:
        factor *= tl.load(scale_ptr + at).to(tl.float32)
    expected = own - log_sum
    spread = 0.0
    if SMOOTHED:
        spread = smoothing / classes
        expected = (1 - smoothing) * expected + smoothing * (tl.sum(plain, 0) / classes - log_sum)
    tl.store(losses_ptr + at, tl.where(used, -expected, 0.0))
    # The label's own logit has been read: nobody writes before all have.
    tl.debug_barrier()
    earlier = tl.zeros([BLOCK], tl.int32)
    for first in range(0, whole, BLOCK):
        earlier = _gradient(
            earlier, logits_ptr, first, classes, label, own == top, top, log_sum, spread, factor, False, BLOCK
        )
    if whole < classes:
        earlier = _gradient(
            earlier, logits_ptr, whole, classes, label, own == top, top, log_sum, spread, factor, True, BLOCK
        )
    # Of equal logits the first is the guess.
    tl.store(right_ptr + at, ((own == top) & (tl.max(earlier, 0) == 0)).to(tl.int64))
    tl.debug_barrier()
    gradient = (tl.exp2((own - log_sum) * _LOG2_E) - spread - (1 - smoothing)) * factor
    tl.store(logits_ptr + label, gradient.to(logits_ptr.dtype.element_ty), mask=known)


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    top, total, plain, logits_ptr, first, classes, LAST: tl.constexpr, SMOOTHED: tl.constexpr, BLOCK: tl.constexpr
):
    """The largest logit until now, and with it the sums of exponentials and of logits, lane by lane."""
    at = first + tl.arange(0, BLOCK)
    if LAST:
        x = tl.load(logits_ptr + at, mask=at < classes, other=float("-inf")).to(tl.float32)
    else:
        x = tl.load(logits_ptr + at).to(tl.float32)
    new_top = tl.maximum(top, tl.max(x, 0))
    # As long as there was nothing but -inf, the largest is no number to subtract.
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)
    total = total * tl.exp2((top - shift) * _LOG2_E) + tl.exp2((x - shift) * _LOG2_E)
    if SMOOTHED:
        plain += tl.where(at < classes, x, 0.0)
    return new_top, total, plain


@triton.jit
def _gradient(  # type: ignore[no-untyped-def]
    earlier, logits_ptr, first, classes, label, is_top, top, log_sum, spread, factor, LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a block, the label's as if it were not the label; where a label has the largest logit
    (`is_top`), note whether another one before it has it too."""
    at = first + tl.arange(0, BLOCK)
    if LAST:
        x = tl.load(logits_ptr + at, mask=at < classes, other=float("-inf")).to(tl.float32)
    else:
        x = tl.load(logits_ptr + at).to(tl.float32)
    if is_top:
        earlier = tl.maximum(earlier, ((x == top) & (at < label)).to(tl.int32))
    gradient = ((tl.exp2((x - log_sum) * _LOG2_E) - spread) * factor).to(logits_ptr.dtype.element_ty)
    if LAST:
        tl.store(logits_ptr + at, gradient, mask=at < classes)
    else:
        tl.store(logits_ptr + at, gradient)
    return earlier
