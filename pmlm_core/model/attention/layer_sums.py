"""The gradient of a bias that all layers share, summed in one place as it arises.

Autograd would have each layer give a gradient of its own and add it to the others'. On a CPU that is several passes
over all scores for each layer, on a GPU some ten small kernels that others wait for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pmlm_core.model.attention.relbias import BinParts, ByDistance, by_bin


class LayerSums:
    """What the layers' parts of one backward pass have added so far; empty before the first and after it was taken.

    A pass that asks for other gradients alone leaves its sums behind, and the next begins with none.
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._of_pass = -1

    def total(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Where a layer adds its gradient, all in the same form; zeros for the first."""
        of_pass = torch._C._current_graph_task_id()
        if self._total is None or self._of_pass != of_pass:
            self._total, self._of_pass = torch.zeros(shape, dtype=dtype), of_pass
        return self._total

    def take(self) -> Tensor | None:
        total, self._total = self._total, None
        return total if self._of_pass == torch._C._current_graph_task_id() else None


class BinSums:
    """The same of parts by bin, which are added up when they are taken."""

    def __init__(self, bins: int) -> None:
        self._bins, self._of_pass = bins, -1
        self._parts: list[BinParts] = []

    def add(self, parts: Sequence[BinParts]) -> None:
        of_pass = torch._C._current_graph_task_id()
        if self._of_pass != of_pass:
            self._parts, self._of_pass = [], of_pass
        self._parts.extend(parts)

    def take(self) -> Tensor | None:
        parts, self._parts = self._parts, []
        ours = parts and self._of_pass == torch._C._current_graph_task_id()
        return by_bin(parts, self._bins) if ours else None


def binned_over_layers(bias: ByDistance) -> ByDistance:
    """The same bias, of which layers leave the gradient's parts in one place; itself if it has no gradient."""
    if not (torch.is_grad_enabled() and bias.weight_HM.requires_grad):
        return bias
    sums = BinSums(bias.weight_HM.shape[1])
    return replace(bias, weight_HM=_Shared.apply(bias.weight_HM, sums), sums=sums)


def summed_over_layers(bias: Tensor) -> tuple[Tensor, LayerSums | None]:
    """The bias as layers are to read it, and where they add its gradient, instead of returning it; None without one."""
    if not (torch.is_grad_enabled() and bias.requires_grad):
        return bias, None
    sums = LayerSums()
    return _Shared.apply(bias, sums), sums


class _Shared(torch.autograd.Function):
    """Autograd runs this backward after those of all layers, whether or not they return a gradient."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, sums: LayerSums | BinSums) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.sums, ctx.shape, ctx.dtype = sums, bias.shape, bias.dtype
        return bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        (returned,) = gradients  # by a kernel that knows nothing of sums
        total = ctx.sums.take()
        if total is None:
            return returned, None
        total = total.sum_to_size(ctx.shape).to(ctx.dtype)
        return total if returned is None else total + returned, None
