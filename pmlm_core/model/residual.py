"""What follows both halves of a layer: dropout, the residual and LayerNorm, on a CPU in one pass over each slot."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pmlm_core.model.device import eager_on_cpu, state_dtype
from pmlm_core.model.dropout import draw_seed, dropout
from pmlm_core.model.loops import compiled, get, number, numbers, put, random_words, share_rows, threshold


def add_and_norm(
    x_BTD: Tensor, residual_BTD: Tensor, norm: nn.LayerNorm, p: float, training: bool, random: Tensor | None = None
) -> Tensor:
    """LayerNorm(residual + dropout(x)), in the wider type of the two; on a GPU in that of the products.

    Args:
        random: see `dropout`.
    """
    if eager_on_cpu(x_BTD):
        return _AddAndNorm.apply(x_BTD, residual_BTD, norm.weight, norm.bias, norm.eps, p if training else 0.0)
    return norm(dropout(x_BTD, p, training, random) + residual_BTD).to(state_dtype(residual_BTD))


class _AddAndNorm(torch.autograd.Function):
    """Backward needs the normalized sum, which is kept in the type of `x`, and draws the dropout mask again."""

    @staticmethod
    def forward(
        ctx: Any, x_BTD: Tensor, residual_BTD: Tensor, weight_D: Tensor, bias_D: Tensor, epsilon: float, p: float
    ) -> Tensor:
        if x_BTD.shape != residual_BTD.shape:
            raise ValueError(f"x is {tuple(x_BTD.shape)} and its residual {tuple(residual_BTD.shape)}; they are added")
        width, dtype = weight_D.shape[0], torch.promote_types(x_BTD.dtype, residual_BTD.dtype)
        x_BTD, residual_BTD = x_BTD.contiguous(), residual_BTD.contiguous()
        out_BTD = torch.empty(x_BTD.shape, dtype=dtype)
        normal_BTD, scales_BT = torch.empty_like(x_BTD), torch.empty(x_BTD.shape[:-1], dtype=_precise(dtype))
        ctx.p, ctx.seed = p, draw_seed() if p else 0
        given = (numbers(x_BTD), numbers(residual_BTD), _of_parameter(weight_D), _of_parameter(bias_D))
        made = (numbers(out_BTD), numbers(normal_BTD), numbers(scales_BT))
        how = (number(dtype, 1 / width), number(dtype, epsilon), *_mask(dtype, ctx.p, ctx.seed))
        share_rows(lambda a, b: _forward(*given, *made, a, b, width, *how), scales_BT.numel(), width)
        ctx.save_for_backward(normal_BTD, scales_BT, weight_D)
        ctx.dtypes = x_BTD.dtype, residual_BTD.dtype
        return out_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        gradient_BTD = gradients[0].contiguous()
        normal_BTD, scales_BT, weight_D = ctx.saved_tensors
        width, dtype = weight_D.shape[0], gradient_BTD.dtype
        x_grad_BTD, residual_grad_BTD = (torch.empty(gradient_BTD.shape, dtype=each) for each in ctx.dtypes)
        given = (numbers(gradient_BTD), numbers(normal_BTD), numbers(scales_BT), _of_parameter(weight_D))
        made = (numbers(x_grad_BTD), numbers(residual_grad_BTD))
        how = (number(dtype, 1 / width), *_mask(dtype, ctx.p, ctx.seed))

        def work(start: int, stop: int) -> np.ndarray:
            of_part = np.zeros((2, width), numbers(scales_BT).dtype)
            _backward(*given, *made, of_part[0], of_part[1], start, stop, width, *how)
            return of_part

        sums = share_rows(work, scales_BT.numel(), width)
        weight_grad_D, bias_grad_D = torch.from_numpy(np.sum(sums, axis=0)).to(weight_D.dtype).unbind()
        return x_grad_BTD, residual_grad_BTD, weight_grad_D, bias_grad_D, None, None


def _of_parameter(x_D: Tensor) -> np.ndarray:
    """Of a copy: memory that numpy has seen can no longer be freed and had again, as FSDP does with parameters."""
    return numbers(x_D.clone())


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _mask(dtype: torch.dtype, p: float, seed: int) -> tuple[Any, ...]:
    return number(dtype, 1 / (1 - p)), threshold(p), np.uint64(seed)


@compiled
def _forward(  # type: ignore[no-untyped-def]
    x, residual, weight, bias, out, normal, scales, start, stop, width, part, epsilon, kept, limit, seed
):
    words = np.empty((width + 3) // 4, np.uint64)
    drawn = words.view(np.uint16)
    zero, one = kept - kept, kept / kept
    sums = np.full(width, zero)
    for r in range(start, stop):
        row, other = x[r * width : (r + 1) * width], residual[r * width : (r + 1) * width]
        total = zero
        if limit:
            random_words(words, seed, np.uint64(r * len(words)))
            for j in range(len(row)):
                factor = zero if np.uint32(drawn[j]) < limit else kept
                both = get(other, j) + get(row, j) * factor
                sums[j] = both
                total += both
        else:
            for j in range(len(row)):
                both = get(other, j) + get(row, j)
                sums[j] = both
                total += both
        mean = total * part
        squares = zero
        for j in range(len(row)):
            away = sums[j] - mean
            squares += away * away
        scale = one / np.sqrt(squares * part + epsilon)
        scales[r] = scale
        made, kept_row = out[r * width : (r + 1) * width], normal[r * width : (r + 1) * width]
        for j in range(len(row)):
            value = (sums[j] - mean) * scale
            put(kept_row, j, value)
            put(made, j, value * get(weight, j) + get(bias, j))


@compiled
def _backward(  # type: ignore[no-untyped-def]
    gradient, normal, scales, weight, x_grad, residual_grad, weight_sum, bias_sum, start, stop, width, part, kept,
    limit, seed,
):  # fmt: skip
    words = np.empty((width + 3) // 4, np.uint64)
    drawn = words.view(np.uint16)
    zero = kept - kept
    sums = np.full(width, zero)
    for r in range(start, stop):
        row, values = gradient[r * width : (r + 1) * width], normal[r * width : (r + 1) * width]
        total, along = zero, zero
        for j in range(len(row)):
            g, value = get(row, j), get(values, j)
            weight_sum[j] += g * value
            bias_sum[j] += g
            scaled = g * get(weight, j)
            sums[j] = scaled
            total += scaled
            along += scaled * value
        mean, slope, scale = total * part, along * part, scales[r]
        into_x, into_residual = x_grad[r * width : (r + 1) * width], residual_grad[r * width : (r + 1) * width]
        for j in range(len(row)):
            change = (sums[j] - mean - get(values, j) * slope) * scale
            sums[j] = change
            put(into_residual, j, change)
        if limit:
            random_words(words, seed, np.uint64(r * len(words)))
            for j in range(len(row)):
                factor = zero if np.uint32(drawn[j]) < limit else kept
                put(into_x, j, sums[j] * factor)
        else:
            for j in range(len(row)):
                put(into_x, j, sums[j])
