"""What the code may ask of the device it runs on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def eager_on_cpu(x: Tensor) -> bool:
    """Whether looking at values is free and shapes may follow them.

    On a GPU a look makes the host wait; under `torch.compile` it breaks the graph. Both want static shapes.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def product_dtype(x: Tensor) -> torch.dtype:
    """What linear layers will give for this input: autocast's type where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def state_dtype(x: Tensor) -> torch.dtype:
    """The type of the states between layers: on a GPU that of the products, since what lies between products waits for
    memory there; on a CPU that of the weights."""
    return x.dtype if x.device.type == "cpu" else product_dtype(x)


def current(x: Tensor) -> AbstractContextManager[Any]:
    """Make a tensor's GPU the current one, on which Triton launches, whatever the tensors' own."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
