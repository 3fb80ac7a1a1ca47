"""The matrix products of a layer on a GPU, with what autograd would do around them left to the products themselves.

Their backward pass gives the weight's gradient in the weight's own type, without rounding it to the products' first,
and adds the gradient of another use of the input as it writes its own.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pmlm_core.model.device import product_dtype


def product(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """`F.linear(x, weight, bias)`; under autocast in its type."""
    made: tuple[Tensor, ...] = _Product.apply(x, weight_OI, bias_O, product_dtype(x), False)
    return made[0]


def product_and_input(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same, and `x` itself for one more use, whose gradient the product of the backward pass takes along.

    >>> x = torch.ones(2, 3, requires_grad=True)
    >>> made, again = product_and_input(x, torch.ones(4, 3))
    >>> (made.sum() + 7 * again.sum()).backward()
    >>> x.grad[0].tolist()
    [11.0, 11.0, 11.0]
    """
    made: tuple[Tensor, Tensor] = _Product.apply(x, weight_OI, bias_O, product_dtype(x), True)
    return made


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype, twice: bool
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        weight, bias = weight_OI.to(dtype), None if bias_O is None else bias_O.to(dtype)
        given = x.to(dtype)
        ctx.save_for_backward(given, weight)
        ctx.dtypes = x.dtype, weight_OI.dtype, None if bias_O is None else bias_O.dtype
        made = F.linear(given, weight, bias)
        return (made, x.view_as(x)) if twice else (made,)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        gradient, other = gradients[0], gradients[1] if len(gradients) == 2 else None
        if gradient is None:
            return other, None, None, None, None
        x, weight = ctx.saved_tensors
        x_dtype, weight_dtype, bias_dtype = ctx.dtypes
        with torch.autocast(x.device.type, enabled=False):
            gradient_RO, x_RI = gradient.flatten(0, -2), x.flatten(0, -2)
            x_grad = None
            if ctx.needs_input_grad[0]:
                if other is None or other.dtype != weight.dtype:
                    x_grad = (gradient_RO @ weight).view(x.shape).to(x_dtype)
                    x_grad = x_grad if other is None else x_grad + other
                else:
                    x_grad = torch.addmm(other.flatten(0, -2), gradient_RO, weight).view(x.shape).to(x_dtype)
            weight_grad = _weight_gradient(gradient_RO, x_RI, weight_dtype) if ctx.needs_input_grad[1] else None
            bias_grad = column_sums(gradient_RO).to(bias_dtype) if ctx.needs_input_grad[2] else None
        return x_grad, weight_grad, bias_grad, None, None


def _weight_gradient(gradient_RO: Tensor, x_RI: Tensor, dtype: torch.dtype) -> Tensor:
    if x_RI.is_cuda and dtype == torch.float32 and x_RI.dtype != dtype and _writes_float32():
        return torch.mm(gradient_RO.t(), x_RI, out_dtype=dtype)
    return (gradient_RO.t() @ x_RI).to(dtype)


@cache
def _writes_float32() -> bool:
    """Whether products of half types can be had in float32, as torch can since 2.8."""
    some = torch.zeros(8, 8, dtype=torch.bfloat16, device="cuda")
    try:
        return torch.mm(some, some, out_dtype=torch.float32).dtype == torch.float32
    except (TypeError, RuntimeError):
        return False


def column_sums(x_RC: Tensor) -> Tensor:
    """Sums over the rows, [C], float32 or better."""
    return x_RC.sum(0, dtype=torch.promote_types(x_RC.dtype, torch.float32))
