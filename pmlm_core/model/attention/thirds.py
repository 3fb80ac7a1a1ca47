"""Query, key and value out of one product, and their gradients back into one without a copy."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def apart(fused_BTPHE: Tensor) -> tuple[Tensor, ...]:
    """The P parts of a fused projection as views, [B, T, H, E] each.

    Their gradients become that of the whole without a copy, if whoever makes them writes them into `side_by_side`.
    """
    if torch.compiler.is_compiling():
        return fused_BTPHE.unbind(2)
    return _Apart.apply(fused_BTPHE)


def side_by_side(like_BTHE: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Room for so many tensors of this shape and type, in the places they have in a fused projection.

    >>> q, k = side_by_side(torch.ones(1, 2, 3, 4), 2)
    >>> q.shape, q.stride(), k.storage_offset()
    (torch.Size([1, 2, 3, 4]), (48, 24, 4, 1), 12)
    """
    batch, length, heads, width = like_BTHE.shape
    return like_BTHE.new_empty(batch, length, parts, heads, width).unbind(2)


class _Apart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fused_BTPHE: Tensor) -> tuple[Tensor, ...]:
        return fused_BTPHE.unbind(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # type: ignore[override]
        whole = _whole(gradients)
        return torch.stack(gradients, 2) if whole is None else whole


def _whole(parts: tuple[Tensor, ...]) -> Tensor | None:
    """What the parts are the parts of, if they lie in memory as `side_by_side` puts them."""
    first, count = parts[0], len(parts)
    batch, length, heads, width = first.shape
    row = heads * width
    strides = (length * count * row, count * row, width, 1)
    for at, part in enumerate(parts):
        together = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        in_place = part.storage_offset() == first.storage_offset() + at * row
        if not (together and in_place and part.stride() == strides and part.dtype == first.dtype):
            return None
    return first.as_strided((batch, length, count, heads, width), (*strides[:2], row, width, 1))
