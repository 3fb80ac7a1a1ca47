"""Bias and GELU on a GPU by Triton kernels, with the gradient of the bias summed as it passes."""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from pmlm_core.model.activation import _SLOPE, _TERMS
from pmlm_core.model.device import current
from pmlm_core.model.fused import processors

COLUMNS = 1024
"""Most columns of a program."""
TILE = 2048
"""Numbers that a program has at hand at a time."""
WARPS = 4
PROGRAMS = 8
"""Programs for each multiprocessor of the GPU: with these, both kernels take an H200's memory no longer than a copy."""

# What `activation._normal` has, for numbers that keep the factors out of the loop.
_NEAR: tl.constexpr = tl.constexpr(_SLOPE * math.sqrt(0.5))
_BELL: tl.constexpr = tl.constexpr(-0.5 * math.log2(math.e))
_DENSITY: tl.constexpr = tl.constexpr(1 / math.sqrt(2 * math.pi))
_A: tl.constexpr = tl.constexpr(_TERMS[0] / 2)
_B: tl.constexpr = tl.constexpr(_TERMS[1] / 2)
_C: tl.constexpr = tl.constexpr(_TERMS[2] / 2)
_D: tl.constexpr = tl.constexpr(_TERMS[3] / 2)
_E: tl.constexpr = tl.constexpr(_TERMS[4] / 2)


def bias_gelu(x: Tensor, bias_F: Tensor) -> Tensor:
    """GELU(x + bias) to 1e-6, in x's type, of x [..., F]."""
    made: Tensor = _BiasGelu.apply(x, bias_F)
    return made


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias_F: Tensor) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        ctx.save_for_backward(x, bias_F)
        _launch(_gelu_forward, x, (x, bias_F.contiguous(), out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, bias_F = ctx.saved_tensors
        x_grad = torch.empty_like(x)
        groups = _groups(x)
        sums_GF = torch.empty(groups, bias_F.shape[0], dtype=torch.float32, device=x.device)
        _launch(_gelu_backward, x, (gradients[0].contiguous(), x, bias_F.contiguous(), x_grad, sums_GF))
        return x_grad, sums_GF.sum(0).to(bias_F.dtype)


def _launch(kernel: Any, x: Tensor, tensors: tuple[Tensor, ...]) -> None:
    width, groups = x.shape[-1], _groups(x)
    if groups:
        with current(x):
            kernel[(_blocks(width), groups)](
                *tensors,
                x.numel() // width,
                groups,
                WIDTH=width,
                COLUMNS=_columns(width),
                ROWS=_rows(width),
                NATIVE=isinstance(kernel, triton.runtime.JITFunction) and torch.version.hip is None,
                num_warps=WARPS,
            )


def _groups(x: Tensor) -> int:
    """Programs that share the rows of a block of columns."""
    width = x.shape[-1]
    wanted = -(-PROGRAMS * processors(x) // _blocks(width))
    return min(wanted, -(-x.numel() // width // _rows(width)))


def _columns(width: int) -> int:
    """As many as divide the width, unless these are few."""
    even = math.gcd(width, COLUMNS)
    return even if even >= 64 else min(COLUMNS, triton.next_power_of_2(width))


def _rows(width: int) -> int:
    return max(1, TILE // _columns(width))


def _blocks(width: int) -> int:
    return -(-width // _columns(width))


@triton.jit
def _normal(x, NATIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """The normal distribution below -|x|, and exp(-x**2 / 2)."""
    bell = tl.exp2(x * _BELL * x)
    nearness = 1.0 + tl.abs(x) * _NEAR
    if NATIVE:
        # The instruction alone; a division has three more around it, for numbers that are not there.
        t = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [nearness], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        t = 1.0 / nearness
    return ((((t * _A + _B) * t + _C) * t + _D) * t + _E) * t * bell, bell


@triton.jit(do_not_specialize=["rows", "groups"])
def _gelu_forward(  # type: ignore[no-untyped-def]
    x_ptr,
    bias_ptr,
    out_ptr,
    rows,
    groups,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    NATIVE: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    bias = tl.load(bias_ptr + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    # 64 bits: a tensor may have more than 2**31 numbers.
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    for _ in tl.range(tl.program_id(1) * ROWS, rows, groups * ROWS):
        at = row[:, None] * WIDTH + column[None, :]
        inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) + bias[None, :]
        tail, _bell = _normal(x, NATIVE)
        out = tl.maximum(x, 0.0) - tl.abs(x) * tail
        tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)
        row += groups * ROWS


@triton.jit(do_not_specialize=["rows", "groups"])
def _gelu_backward(  # type: ignore[no-untyped-def]
    gradient_ptr,
    x_ptr,
    bias_ptr,
    x_grad_ptr,
    sums_ptr,
    rows,
    groups,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    NATIVE: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    bias = tl.load(bias_ptr + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    for _ in tl.range(tl.program_id(1) * ROWS, rows, groups * ROWS):
        at = row[:, None] * WIDTH + column[None, :]
        inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
        gradient = tl.load(gradient_ptr + at, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) + bias[None, :]
        tail, bell = _normal(x, NATIVE)
        below = tl.where(x > 0, 1.0 - tail, tail)
        gradient *= below + x * (bell * _DENSITY)
        tl.store(x_grad_ptr + at, gradient.to(x_grad_ptr.dtype.element_ty), mask=inside)
        total += gradient
        row += groups * ROWS
    tl.store(sums_ptr + tl.program_id(1) * WIDTH + column, tl.sum(total, 0), mask=column < WIDTH)
