"""A model trained by several workers together."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pmlm_core.training.step import Batch, Precision, Task


def together(model: nn.Module, precision: Precision, world: int) -> nn.Module:
    """The model as `world` workers train it: wrapped in DDP if they are several."""
    if world == 1:
        return model
    devices = [precision.device] if precision.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


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
