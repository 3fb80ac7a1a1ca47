"""Fully sharded training (torch's FSDP2): each of W workers holds 1/W of every weight, gradient and moment of Adam.

A sharded parameter is a DTensor cut along its first dimension; a layer's weights are gathered while it computes. The
functions below give whole tensors for what is not sharded, so that checkpoints, norms and optimizer state have one
code for one worker, DDP and FSDP (docs/decisions/0011).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def shard(model: PreTrainedModel, device: torch.device, world: int) -> None:
    """Shard `model`, equal on all workers, in place, and move it to `device`: layer by layer, then what is left.

    What is left (embeddings, position bias, output layer) stays gathered through a step: the output layer shares the
    token embedding, so that its weight is wanted at both ends. Call this before the optimizer is made.
    """
    mesh = init_device_mesh(device.type, (world,))
    for module in list(model.modules()):
        if type(module).__name__ in (model._no_split_modules or ()):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def rest(model: nn.Module) -> None:
    """Free what a forward pass without a backward pass has left gathered, so that parameters are shards again."""
    if isinstance(model, FSDPModule):
        model.reshard()


def copy_to_cpu(tensor: Tensor, *, wanted: bool = True) -> Tensor:
    """A copy of the whole tensor on the CPU. Where it is sharded, every worker has to call this.

    Args:
        wanted: whether this worker needs it; if not, it only takes part and gets an empty tensor.
    """
    tensor = tensor.detach()
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.to("cpu", copy=True) if wanted else torch.empty(0)


def like(parameter: Tensor, whole: Tensor) -> Tensor:
    """`whole`, which all workers have, on the device of `parameter`, in its type, and sharded as it is."""
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        return distribute_tensor(whole.to(parameter.dtype), mesh, placements, src_data_rank=None)
    return whole.to(parameter.device, parameter.dtype)


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients as one vector, over all shards."""
    norm = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
