"""Which kernel computes attention: by device, type and size; or as the environment variable `PMLM_ATTENTION` says.

`auto` (the default) is `plain` on a CPU, `triton` on a GPU that runs Triton and passes its trial there, and `sdpa`
elsewhere and under `torch.compile`. `plain`, `sdpa`, `triton` and `reference` force one, except under `torch.compile`.
"""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from pmlm_core.errors import ConfigError
from pmlm_core.model.device import eager_on_cpu

VARIABLE = "PMLM_ATTENTION"
NAMES = ("auto", "plain", "sdpa", "triton", "reference")
WIDTHS = (16, 32, 64, 128)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def kernel_for(x: Tensor, dtype: torch.dtype, width: int) -> str:
    """The kernel for a step on `x`'s device.

    Args:
        dtype: of queries, keys and values.
        width: head size E.
    """
    if torch.compiler.is_compiling():
        return "sdpa"
    wanted = _wanted()
    if wanted == "triton":
        _refuse_what_triton_lacks(x, dtype, width)
        return wanted
    if wanted == "plain" and x.device.type != "cpu":
        raise ConfigError(f"{VARIABLE}=plain computes on a CPU, and the model is on {x.device.type}.")
    if wanted != "auto":
        return wanted
    if eager_on_cpu(x):
        return "plain"
    return "triton" if _triton_suits(x, dtype, width) else "sdpa"


def dense_kernel(x: Tensor) -> str:
    """The kernel for calls that carry their bias as a tensor."""
    if torch.compiler.is_compiling():
        return "sdpa"
    wanted = _wanted()
    if wanted in ("auto", "triton"):
        return "plain" if eager_on_cpu(x) else "sdpa"
    return wanted


def _wanted() -> str:
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted not in NAMES:
        raise ConfigError(f"{VARIABLE} is '{wanted}'; it may be {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
    return wanted


def _triton_suits(x: Tensor, dtype: torch.dtype, width: int) -> bool:
    if x.device.type != "cuda" or dtype not in DTYPES or width not in WIDTHS or find_spec("triton") is None:
        return False
    from pmlm_core.model.attention.trial import passes

    return passes(x.device, dtype, width)


def _refuse_what_triton_lacks(x: Tensor, dtype: torch.dtype, width: int) -> None:
    if dtype not in DTYPES or width not in WIDTHS:
        raise ConfigError(
            f"{VARIABLE}=triton has no kernel for heads of size {width} in {dtype}; sizes are "
            f"{', '.join(map(str, WIDTHS))}, types bfloat16, float16 and float32."
        )
    if find_spec("triton") is None:
        raise ConfigError(f"{VARIABLE}=triton needs the package triton, which is not installed.")
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(f"{VARIABLE}=triton needs a GPU, and the model is on {x.device.type}.")
