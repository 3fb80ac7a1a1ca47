"""Which kernels compute a model here."""

from typing import Any

import torch

from pmlm_core.model.attention.choice import kernel_for
from pmlm_core.model.fused import fuses
from pmlm_core.training.step import Precision


def kernels_in_use(model: Any, precision: Precision) -> dict[str, str]:
    """What computes attention and the rest of a layer: a kernel that fails its trial is left for another, which draws
    other dropout.

    Args:
        model: any of ours, where it is to train.
    """
    dtype = torch.bfloat16 if precision.name == "bf16" else torch.float32
    some, config = next(model.parameters()), model.config
    fused = fuses(some, dtype, config.hidden_size, config.intermediate_size)
    return {"attention": kernel_for(some, dtype, config.head_size), "layer": "triton" if fused else "torch"}
