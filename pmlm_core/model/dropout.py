"""Dropout that costs nothing when it is off, and little on a CPU.

torch draws a CPU dropout mask number by number, which takes longer than the attention product it is for; here 16 random
bits decide about each value (so p is met to 1 / 65536), drawn from torch's own generator by the 64.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pmlm_core.model.device import eager_on_cpu


def keep_mask(shape: Sequence[int], p: float) -> Tensor:
    """A random mask on the CPU, bool: False with probability `p`.

    >>> _ = torch.manual_seed(0)
    >>> round(keep_mask((100, 1000), 0.25).float().mean().item(), 2)
    0.75
    """
    count = 1
    for size in shape:
        count *= size
    bits = torch.empty(count // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return (bits[:count] >= round(p * 65536) - 32768).view(tuple(shape))


class _CpuDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:  # type: ignore[no-untyped-def]
        factor = keep_mask(x.shape, p).to(x.dtype).mul_(1 / (1 - p))
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def, override]
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each value with probability `p` and scale the others by 1 / (1 - p); the identity when off."""
    if not training or p == 0:
        return x
    if eager_on_cpu(x):
        return _CpuDropout.apply(x, p)
    return F.dropout(x, p)
