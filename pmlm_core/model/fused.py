"""Whether Triton kernels do what lies between the matrix products of a layer; `PMLM_LAYER` may say so by hand.

`auto` (the default) is `triton` on a GPU that runs Triton and passes the trial, and `torch` elsewhere; both can be
forced. Under `torch.compile` it is torch.
"""

import os
import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from pmlm_core.errors import ConfigError
from pmlm_core.model.dropout import drop_by_products
from pmlm_core.model.trying import beside_the_step, errors, problem_of

VARIABLE = "PMLM_LAYER"
NAMES = ("auto", "torch", "triton")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WIDEST = 8192
"""Of rows with more numbers too few fit into a multiprocessor's registers."""
_ROOM = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Share of the largest number by which results may be off."""


def fuses(x: Tensor, dtype: torch.dtype, width: int, wide: int) -> bool:
    """Whether the kernels do a step on `x`'s device.

    Args:
        dtype: of the products.
        width, wide: hidden size, and that inside the feed-forward block.
    """
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted not in NAMES:
        raise ConfigError(f"{VARIABLE} is '{wanted}'; it may be {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
    if wanted == "torch" or torch.compiler.is_compiling():
        return False
    if wanted == "triton":
        _refuse_what_triton_lacks(x, dtype, width)
        return True
    if x.device.type != "cuda" or dtype not in DTYPES or width > WIDEST or find_spec("triton") is None:
        return False
    return _passes(x.device, dtype, width, wide)


def processors(x: Tensor) -> int:
    """Multiprocessors of a tensor's GPU."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2


def _refuse_what_triton_lacks(x: Tensor, dtype: torch.dtype, width: int) -> None:
    if dtype not in DTYPES or width > WIDEST:
        raise ConfigError(
            f"{VARIABLE}=triton has no kernel for states of size {width} in {dtype}; sizes go to {WIDEST}, types are "
            "bfloat16, float16 and float32."
        )
    if find_spec("triton") is None:
        raise ConfigError(f"{VARIABLE}=triton needs the package triton, which is not installed.")
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(f"{VARIABLE}=triton needs a GPU, and the model is on {x.device.type}.")


@cache
def _passes(device: torch.device, dtype: torch.dtype, width: int, wide: int) -> bool:
    """Whether the kernels compile, run and agree with torch, tried once in a process; a warning says if not."""
    problem = problem_of(lambda: _worst_error(device, dtype, width, wide), _ROOM[dtype], "are off by")
    if problem:
        warnings.warn(
            f"The Triton kernels of a layer {problem} on {device} with states of {width} in {dtype}; torch's own "
            "operations are taken instead, which is slower.",
            stacklevel=2,
        )
    return not problem


@torch.inference_mode(False)
@torch.enable_grad()
def _worst_error(device: torch.device, dtype: torch.dtype, width: int, wide: int) -> float:
    """The largest of the errors of outputs and gradients, each as a share of the largest number there."""
    from pmlm_core.model.activation_tiled import bias_gelu
    from pmlm_core.model.residual_tiled import add_and_norm, most_programs

    draw = torch.Generator(device).manual_seed(0)
    p, epsilon = 0.1, 1e-5
    # Three batches of so many: every program takes several rows, in a large GPU too.
    length = most_programs(torch.empty(0, device=device), width, "forward")

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=device)

    states, fed = numbers(4, 3, length, width).to(dtype), numbers(2, 3, length, wide).to(dtype)
    vectors, bias = numbers(3, width), numbers(wide)
    shape = (3 * length + width,)
    random = torch.randint(-(2**31), 2**31, shape, generator=draw, dtype=torch.int32, device=device) | 1
    results = []
    with beside_the_step(device):
        for ours in (True, False):
            kept = dtype if ours else torch.float32
            x, residual, wide_x = (each.detach().to(kept).requires_grad_() for each in (*states[:2], fed[0]))
            b, weight, shift, wide_b = (each.clone().requires_grad_() for each in (*vectors, bias))
            if ours:
                one, two = add_and_norm(x, b, residual, weight, shift, epsilon, p, random, dtype)
                made = bias_gelu(wide_x, wide_b)
            else:
                total = residual + drop_by_products(x + b, p, random)
                one = two = F.layer_norm(total, (width,), weight, shift, epsilon)
                made = F.gelu(wide_x + wide_b)
            given = [states[2].to(kept), states[3].to(kept), fed[1].to(kept)]
            inputs = (x, b, residual, weight, shift, wide_x, wide_b)
            results.append([one, made, *torch.autograd.grad([one, two, made], inputs, given)])
        return float(torch.stack(errors(results)).max().detach())
