"""What the code may ask of the device it runs on."""

import torch
from torch import Tensor


def eager_on_cpu(x: Tensor) -> bool:
    """Whether looking at values is free and shapes may follow them.

    On a GPU a look makes the host wait; under `torch.compile` it breaks the graph. Both want static shapes.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
