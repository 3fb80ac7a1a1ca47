"""Dropout that costs nothing when it is off, and little on a CPU.

torch draws a CPU dropout mask number by number and widens it from bool, which takes longer than the attention product
it is for; here a hash of (seed, place) decides about each value, 16 bits each (so p is met to 1 / 65536), and the same
loop multiplies. The seed comes from torch's own generator; backward draws the same mask again instead of keeping it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pmlm_core.model.device import eager_on_cpu
from pmlm_core.model.loops import compiled, get, number, numbers, put, random_words, share_rows, threshold

_BLOCK = 1024
"""Values whose random bits are drawn at a time; they stay in the cache."""


def draw_seed() -> int:
    """A seed of 64 bits from torch's CPU generator."""
    return int(torch.empty((), dtype=torch.int64).random_(-(2**63), None)) & (2**64 - 1)


def drop(x: Tensor, p: float, seed: int) -> Tensor:
    """`x`, on the CPU, with each value zeroed with probability `p` and the others multiplied by 1 / (1 - p).

    >>> round((drop(torch.ones(100_000), 0.25, seed=0) == 0).float().mean().item(), 2)
    0.25
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    given, made = numbers(x), numbers(out)
    how = number(x.dtype, 1 / (1 - p)), threshold(p), np.uint64(seed)
    blocks = -(-len(given) // _BLOCK)
    share_rows(lambda start, stop: _drop(given, made, start, stop, *how), blocks, _BLOCK)
    return out


class _CpuDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p, ctx.seed = p, draw_seed()
        return drop(x, p, ctx.seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return drop(gradients[0], ctx.p, ctx.seed), None


def dropout(x: Tensor, p: float, training: bool, random: Tensor | None = None) -> Tensor:
    """Zero each value with probability `p` and scale the others by 1 / (1 - p); the identity when off.

    Args:
        random: decides, if it is given: see `drop_by_products`.
    """
    if not training or p == 0:
        return x
    if random is not None:
        return drop_by_products(x, p, random)
    if eager_on_cpu(x):
        return _CpuDropout.apply(x, p)
    return F.dropout(x, p)


def draw_products(x_BTD: Tensor, count: int) -> Tensor:
    """Odd random numbers for `drop_by_products`, for so many uses: of rows and columns, int32 [count, B * T + D]."""
    batch, length, width = x_BTD.shape
    shape = (count, batch * length + width)
    return torch.randint(-(2**31), 2**31, shape, dtype=torch.int32, device=x_BTD.device).bitwise_or_(1)


def drop_by_products(x_BTD: Tensor, p: float, random: Tensor) -> Tensor:
    """Dropout by the product, modulo 2**32, of a random number of the row and one of the column, int32 [B * T + D].

    For code that is fused, by `torch.compile` or in a kernel of its own: torch's generator takes some sixty operations
    for a value, which is longer than its way through memory. Why products do: `attention.tiled.parts.dropped`.

    >>> x = torch.ones(1, 400, 300)
    >>> round((drop_by_products(x, 0.2, draw_products(x, 1)[0]) == 0).float().mean().item(), 1)
    0.2
    """
    batch, length, _ = x_BTD.shape
    rows_BT1, columns_D = random[: batch * length].view(batch, length, 1), random[batch * length :]
    keep_BTD = rows_BT1 * columns_D >= round(p * 2**32) - 2**31
    return torch.where(keep_BTD, x_BTD * (1 / (1 - p)), 0.0)


@compiled
def _drop(given, made, start, stop, scale, limit, seed):  # type: ignore[no-untyped-def]
    words = np.empty(_BLOCK // 4, np.uint64)
    drawn = words.view(np.uint16)
    zero = scale - scale
    for block in range(start, stop):
        values = given[block * _BLOCK : (block + 1) * _BLOCK]
        out = made[block * _BLOCK : (block + 1) * _BLOCK]
        random_words(words, seed, np.uint64(block * len(words)))
        for i in range(len(values)):
            factor = zero if np.uint32(drawn[i]) < limit else scale
            put(out, i, get(values, i) * factor)
