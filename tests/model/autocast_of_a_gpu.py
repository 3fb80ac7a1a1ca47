"""The branches that a model takes on a GPU, on a CPU: shapes that follow no values, and the types of CUDA's autocast.

CPU and CUDA autocast agree on products, and differ on what is widened: only CUDA's makes fp32 of a softmax, LayerNorm,
sum or power. An in-place operation is left alone by both, and so meets other types on a GPU.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pmlm_core.model import device
from pmlm_core.model.attention import choice

WIDENED = """
acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus layer_norm group_norm norm
cosine_similarity nll_loss cross_entropy kl_div l1_loss smooth_l1_loss huber_loss mse_loss logsumexp prod softmax
log_softmax cumprod cumsum sum binary_cross_entropy_with_logits dist cdist
"""
"""Operations that CUDA's autocast computes in fp32, unless their `dtype` is given (aten/src/ATen/autocast_mode.h)."""


class _Widening(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        widened = getattr(func, "__name__", "") in WIDENED.split() and kwargs.get("dtype") is None
        if widened and torch.is_autocast_enabled("cpu"):
            args, kwargs = [_wide(x) for x in args], {name: _wide(x) for name, x in kwargs.items()}
        return func(*args, **kwargs)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x


@contextmanager
def as_on_a_gpu(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """bf16 autocast of a GPU, and the branches of one."""
    for name, module in list(sys.modules.items()):
        if name.startswith("pmlm_core.model."):
            if hasattr(module, "eager_on_cpu"):
                patch.setattr(module, "eager_on_cpu", lambda x: False)
            if hasattr(module, "state_dtype"):
                patch.setattr(module, "state_dtype", device.product_dtype)
    patch.setenv(choice.VARIABLE, "sdpa")
    with torch.autocast("cpu", torch.bfloat16), _Widening():
        yield
