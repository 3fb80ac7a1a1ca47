"""What follows both halves of a layer on a GPU, by Triton kernels: each number is read and written once.

A program is one warp, for rows of up to 1024 numbers, which it holds in registers: sums need no second reading and no
barrier. It takes many rows, the next ones on their way meanwhile, and keeps what belongs to columns in registers all
along, the gradients of bias and LayerNorm included.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from pmlm_core.model.device import current
from pmlm_core.model.fused import processors

PER_THREAD = 32
"""Numbers of a row that a thread holds of each tensor."""
PROGRAMS = {"forward": 12, "backward": 8}
"""Programs for each multiprocessor of the GPU, for rows of 1024 numbers. These and the others are the fastest of 72
that were tried on an H200, with rows of 768."""
STAGES = 3
"""Rows on their way through memory at a time, that at hand included."""


def add_and_norm(
    x_BTD: Tensor,
    bias_D: Tensor,
    residual_BTD: Tensor,
    weight_D: Tensor,
    shift_D: Tensor,
    epsilon: float,
    p: float,
    random: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """LayerNorm(residual + dropout(x + bias)) in `dtype`, twice in the same memory, for two uses.

    Backward adds the gradients of both uses as it reads them; one that is not used costs nothing.

    Args:
        weight_D, shift_D: LayerNorm's.
        p: dropout's rate; 0 for none.
        random: of `draw_products`, int32 [B * T + D]: decides as in `drop_by_products`; None for no dropout.
    """
    if x_BTD.shape != residual_BTD.shape:
        raise ValueError(f"x is {tuple(x_BTD.shape)} and its residual {tuple(residual_BTD.shape)}; they are added")
    given = x_BTD, bias_D, residual_BTD, weight_D, shift_D
    made: tuple[Tensor, Tensor] = _AddAndNorm.apply(
        *given, None if p == 0 else random, epsilon, p, dtype, torch.is_grad_enabled()
    )
    return made


class _AddAndNorm(torch.autograd.Function):
    """Backward needs the normalized sum, kept in the type of the output, and one number of each row."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        bias_D: Tensor,
        residual_BTD: Tensor,
        weight_D: Tensor,
        shift_D: Tensor,
        random: Tensor | None,
        epsilon: float,
        p: float,
        dtype: torch.dtype,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        width = weight_D.shape[0]
        x_BTD, residual_BTD = x_BTD.contiguous(), residual_BTD.contiguous()
        out_BTD = torch.empty(x_BTD.shape, dtype=dtype, device=x_BTD.device)
        rows = out_BTD.numel() // width
        # Nobody reads or writes the stand-ins.
        normal_BTD, scales_R = out_BTD, out_BTD
        if with_gradient:
            normal_BTD = torch.empty_like(out_BTD)
            scales_R = torch.empty(rows, dtype=torch.float32, device=x_BTD.device)
        programs = _programs(x_BTD, rows, width, "forward")
        if rows:
            with current(x_BTD):
                _norm_forward[(programs,)](
                    x_BTD,
                    bias_D.contiguous(),
                    residual_BTD,
                    weight_D.contiguous(),
                    shift_D.contiguous(),
                    x_BTD if random is None else random.contiguous(),
                    out_BTD,
                    normal_BTD,
                    scales_R,
                    rows,
                    programs,
                    epsilon,
                    *_dropout(p),
                    DROPOUT=random is not None,
                    KEPT=with_gradient,
                    **_options(width),
                )
        if with_gradient:
            ctx.save_for_backward(normal_BTD, scales_R, weight_D, random)
            ctx.p = p
            ctx.dtypes = x_BTD.dtype, bias_D.dtype, residual_BTD.dtype, weight_D.dtype, shift_D.dtype
        return out_BTD, out_BTD.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        given = [each.contiguous() for each in gradients if each is not None]
        if not given:
            return (None,) * 10
        normal_BTD, scales_R, weight_D, random = ctx.saved_tensors
        x_dtype, bias_dtype, residual_dtype, weight_dtype, shift_dtype = ctx.dtypes
        width, rows = weight_D.shape[0], scales_R.shape[0]
        residual_grad_BTD = torch.empty(normal_BTD.shape, dtype=residual_dtype, device=normal_BTD.device)
        x_grad_BTD = residual_grad_BTD
        if random is not None or x_dtype != residual_dtype:
            x_grad_BTD = torch.empty(normal_BTD.shape, dtype=x_dtype, device=normal_BTD.device)
        programs = _programs(normal_BTD, rows, width, "backward")
        sums_P3D = torch.empty(programs, 3, width, dtype=torch.float32, device=normal_BTD.device)
        if rows:
            with current(normal_BTD):
                _norm_backward[(programs,)](
                    given[0],
                    given[-1],
                    normal_BTD,
                    scales_R,
                    weight_D.contiguous(),
                    normal_BTD if random is None else random.contiguous(),
                    residual_grad_BTD,
                    x_grad_BTD,
                    sums_P3D,
                    rows,
                    programs,
                    *_dropout(ctx.p),
                    DROPOUT=random is not None,
                    BOTH=len(given) == 2,
                    APART=x_grad_BTD is not residual_grad_BTD,
                    **_options(width),
                )
        weight_grad_D, shift_grad_D, bias_grad_D = sums_P3D.sum(0).unbind()
        return (
            x_grad_BTD,
            bias_grad_D.to(bias_dtype),
            residual_grad_BTD,
            weight_grad_D.to(weight_dtype),
            shift_grad_D.to(shift_dtype),
            *(None,) * 5,
        )


def _programs(x: Tensor, rows: int, width: int, kernel: str) -> int:
    return min(rows, most_programs(x, width, kernel))


def most_programs(x: Tensor, width: int, kernel: str) -> int:
    """So many at most for rows of `width` numbers on a tensor's GPU."""
    there = PROGRAMS[kernel] * 1024 // triton.next_power_of_2(width)
    return max(1, min(32, there)) * processors(x)


def _dropout(p: float) -> tuple[int, float]:
    """Below which number, with its sign, a value is dropped, and the factor of the others."""
    return min(round(p * 2**32) - 2**31, 2**31 - 1), 1 / (1 - p) if p < 1 else 0.0


def _options(width: int) -> dict[str, int]:
    block = triton.next_power_of_2(width)
    warps = min(16, max(1, block // (32 * PER_THREAD)))
    return {"WIDTH": width, "BLOCK": block, "STAGES": STAGES, "num_warps": warps}


@triton.jit
def _load(ptr, lane, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(ptr + lane, mask=lane < WIDTH, other=0.0).to(tl.float32)


@triton.jit
def _store(ptr, lane, value, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.store(ptr + lane, value.to(ptr.dtype.element_ty), mask=lane < WIDTH)


@triton.jit
def _random(ptr, at, end):  # type: ignore[no-untyped-def]
    """Numbers without a sign: their products wrap around."""
    return tl.load(ptr + at, mask=at < end, other=0).to(tl.uint32, bitcast=True)


@triton.jit
def _dropped(x, row_random, column_random, limit, factor):  # type: ignore[no-untyped-def]
    keep = (row_random * column_random).to(tl.int32, bitcast=True) >= limit
    return tl.where(keep, x * factor, 0.0)


@triton.jit(do_not_specialize=["rows", "programs"])
def _norm_forward(  # type: ignore[no-untyped-def]
    x_ptr,
    bias_ptr,
    residual_ptr,
    weight_ptr,
    shift_ptr,
    random_ptr,
    out_ptr,
    normal_ptr,
    scales_ptr,
    rows,
    programs,
    epsilon,
    limit,
    factor,
    DROPOUT: tl.constexpr,
    KEPT: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    lane = tl.arange(0, BLOCK)
    bias, weight, shift = _load(bias_ptr, lane, WIDTH), _load(weight_ptr, lane, WIDTH), _load(shift_ptr, lane, WIDTH)
    # 64 bits: a tensor may have more than 2**31 numbers.
    row = tl.program_id(0).to(tl.int64)
    if DROPOUT:
        column_random = _random(random_ptr + rows, lane, WIDTH)
        next_random = _random(random_ptr, row, rows)
    for _ in tl.range(tl.program_id(0), rows, programs, num_stages=STAGES):
        at = row * WIDTH
        x = _load(x_ptr + at, lane, WIDTH) + bias
        residual = _load(residual_ptr + at, lane, WIDTH)
        if DROPOUT:
            x = _dropped(x, next_random, column_random, limit, factor)
            next_random = _random(random_ptr, row + programs, rows)
        total = residual + x
        mean = tl.sum(total, 0) / WIDTH
        away = tl.where(lane < WIDTH, total - mean, 0.0)
        scale = tl.rsqrt(tl.sum(away * away, 0) / WIDTH + epsilon)
        normal = away * scale
        _store(out_ptr + at, lane, normal * weight + shift, WIDTH)
        if KEPT:
            _store(normal_ptr + at, lane, normal, WIDTH)
            tl.store(scales_ptr + row, scale)
        row += programs


@triton.jit(do_not_specialize=["rows", "programs"])
def _norm_backward(  # type: ignore[no-untyped-def]
    first_ptr,
    second_ptr,
    normal_ptr,
    scales_ptr,
    weight_ptr,
    random_ptr,
    residual_grad_ptr,
    x_grad_ptr,
    sums_ptr,
    rows,
    programs,
    limit,
    factor,
    DROPOUT: tl.constexpr,
    BOTH: tl.constexpr,
    APART: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Args:
    BOTH: there are two gradients, which are added.
    APART: that of x goes into memory of its own.
    """
    lane = tl.arange(0, BLOCK)
    weight = _load(weight_ptr, lane, WIDTH)
    weight_sum = tl.zeros([BLOCK], tl.float32)
    shift_sum = tl.zeros([BLOCK], tl.float32)
    bias_sum = tl.zeros([BLOCK], tl.float32)
    row = tl.program_id(0).to(tl.int64)
    # A row's own numbers are on their way while the row before is at hand.
    next_scale = tl.load(scales_ptr + row)
    if DROPOUT:
        column_random = _random(random_ptr + rows, lane, WIDTH)
        next_random = _random(random_ptr, row, rows)
    for _ in tl.range(tl.program_id(0), rows, programs, num_stages=STAGES):
        at = row * WIDTH
        gradient = _load(first_ptr + at, lane, WIDTH)
        if BOTH:
            gradient += _load(second_ptr + at, lane, WIDTH)
        normal = _load(normal_ptr + at, lane, WIDTH)
        scale = next_scale
        next_scale = tl.load(scales_ptr + row + programs, mask=row + programs < rows, other=0.0)
        weight_sum += gradient * normal
        shift_sum += gradient
        scaled = gradient * weight
        mean = tl.sum(scaled, 0) / WIDTH
        slope = tl.sum(scaled * normal, 0) / WIDTH
        change = (scaled - mean - normal * slope) * scale
        _store(residual_grad_ptr + at, lane, change, WIDTH)
        if DROPOUT:
            change = _dropped(change, next_random, column_random, limit, factor)
            next_random = _random(random_ptr, row + programs, rows)
        bias_sum += change
        if APART:
            _store(x_grad_ptr + at, lane, change, WIDTH)
        row += programs
    sums_ptr += tl.program_id(0) * 3 * WIDTH
    _store(sums_ptr, lane, weight_sum, WIDTH)
    _store(sums_ptr + WIDTH, lane, shift_sum, WIDTH)
    _store(sums_ptr + 2 * WIDTH, lane, bias_sum, WIDTH)
