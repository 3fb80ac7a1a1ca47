"""How a model is trained: by several workers together, with or without its activations kept."""

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from pmlm_core.training.step import Batch, Precision, Task


def together(model: nn.Module, precision: Precision, world: int) -> nn.Module:
    """The model as `world` workers train it: wrapped in DDP if they are several, unless it is sharded already."""
    if world == 1 or isinstance(model, FSDPModule):
        return model
    devices = [precision.device] if precision.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def recompute_layers(model: PreTrainedModel) -> None:
    """Keep only the input of every layer for backward, which computes the layer again, with the same dropout.

    It costs a forward pass more. torch puts its random generators back for it, so losses and gradients are the same.
    """
    # One function of transformers, under its newer and its older name.
    name = "activation_checkpointing_enable"
    enable = getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")
    enable({"use_reentrant": False})


def settle_buckets(model: nn.Module, batch: Batch, task: Task, precision: Precision) -> None:
    """Run one backward pass and throw its gradient away.

    DDP arranges its buckets anew after the first backward pass, by the order in which gradients came. With three or
    more workers the place in a bucket decides the order of summation, so without this the first step after a resumption
    would round differently from the same step of an uninterrupted run.
    """
    if isinstance(model, DistributedDataParallel):
        with precision.autocast():
            loss_sum, _ = task.losses(model, batch)
        (loss_sum * 0.0).backward()
        model.zero_grad(set_to_none=True)
