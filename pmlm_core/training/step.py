"""THE training step, for pre-training and fine-tuning alike.

The loss is a sum over predicted tokens divided by their count in the whole global batch, so that neither the number of
workers nor gradient accumulation moves it (docs/method.md, 1).
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from pmlm_core.errors import NotFinite, TrainingError
from pmlm_core.randomness import key
from pmlm_core.training.optimizer import skips_non_finite
from pmlm_core.training.reduce import all_sum, world_size
from pmlm_core.training.sharding import total_norm

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What a step needs to know of the model's job."""

    figures: tuple[str, ...]
    """Names of what `losses` reports besides the loss."""
    count: Callable[[Batch], int]
    """Number of predicted tokens (or examples) of a micro-batch."""
    losses: Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]
    """Forward pass: the sum of losses over those predictions, and figures (sums too) to report."""


@dataclass(frozen=True)
class Precision:
    """Where the forward pass runs and in which type: "fp32", or "bf16" for autocast."""

    device: torch.device
    name: str

    def autocast(self, cache_enabled: bool = True) -> contextlib.AbstractContextManager[Any]:
        if self.name == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=cache_enabled)
        return contextlib.nullcontext()


@dataclass(frozen=True)
class StepResult:
    """Sums over the whole global batch."""

    count: int
    figures: dict[str, float]
    """Sums named as the task names them, and "loss"."""
    shared: list[float]
    """The caller's own numbers, summed over the workers on the way."""
    gradient_norm: float


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[tuple[int, Batch]],
    task: Task,
    *,
    step: int,
    seed: int,
    precision: Precision,
    max_grad_norm: float | None = None,
    share: Sequence[float] = (),
    counted: int | None = None,
    keep_gradients: bool = False,
) -> StepResult:
    """Make one update from this worker's micro-batches of the global batch.

    Args:
        model: the model, wrapped in DDP or sharded when there are several workers.
        micro_batches: (index in the global batch, tensors) of each; every worker holds equally many.
        step: number of the step, from 0; it names the step in errors and seeds dropout.
        seed: dropout of micro-batch i of step s is a function of (seed, s, i), not of the worker that computes it.
        max_grad_norm: clip the gradient's norm to this, or leave it.
        share: numbers to be summed over the workers together with the counts (a saving request, token counts).
        counted: what `task.count` gives over these micro-batches, if it is known: counting on a GPU makes it wait.
        keep_gradients: zero gradients in place between updates instead of dropping them (`graphs.record`).

    Raises:
        NotFinite: loss or gradient is not finite; whether this worker has made its update, `NotFinite` says.
        TrainingError: the global batch holds nothing to predict.
    """
    if counted is None:
        counted = sum(task.count(batch) for _, batch in micro_batches)
    count, *shared = all_sum([counted, *share], precision.device)
    if count == 0:
        raise TrainingError(
            f"step {step}: the global batch holds no predicted token; the blocks have no masked position"
        )
    # DDP and FSDP average over workers; the factor makes that a sum.
    scale = world_size() / count
    _zero_gradients(model, optimizer, keep=keep_gradients and len(micro_batches) > 1)
    sums: dict[str, Tensor] = {}
    for position, (index, batch) in enumerate(micro_batches):
        hold = _hold(model, last=position == len(micro_batches) - 1)
        torch.manual_seed(key(seed, "dropout", step, index) >> 1)
        with hold:
            with precision.autocast():
                loss_sum, figures = task.losses(model, batch)
            (loss_sum * scale).backward()
        for name, value in {"loss": loss_sum, **figures}.items():
            added = value.detach().double()
            sums[name] = sums[name] + added if name in sums else added
    names = ("loss", *task.figures)
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = total_norm([p.grad for p in parameters if p.grad is not None])
    if max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
    told = torch.stack([*(sums[n] for n in names), norm.double()])
    # A device that judges for itself need not wait for the host to look.
    judged = skips_non_finite(optimizer, torch.stack([told[0], told[-1]]))
    look = _on_its_way(told)
    if judged:
        optimizer.step()
    *values, gradient_norm = look().tolist()
    totals = dict(zip(names, all_sum(values, precision.device), strict=True))
    _refuse_non_finite(step, totals["loss"] / count, gradient_norm)
    if not judged:
        optimizer.step()
    return StepResult(int(count), totals, shared, gradient_norm)


def _on_its_way(figures: Tensor) -> Callable[[], Tensor]:
    """A copy for the host, which waits for what was sent to the GPU until now and for nothing after it: while the GPU
    is still updating the weights, one worker sends the next step already; several share the figures first."""
    if not figures.is_cuda:
        return lambda: figures
    copy, copied = figures.to("cpu", non_blocking=True), torch.cuda.Event()
    copied.record(torch.cuda.current_stream(figures.device))

    def wait() -> Tensor:
        copied.synchronize()
        return copy

    return wait


def _zero_gradients(model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: bool) -> None:
    optimizer.zero_grad(set_to_none=not keep)
    if keep:
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


def _hold(model: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients of all micro-batches but the last stay with their worker; the last brings their sum to the others."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return contextlib.nullcontext()


def _refuse_non_finite(step: int, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    raise NotFinite(
        f"step {step}: {what}; training stopped before this update and the last checkpoint is good. "
        "Lower learning_rate, lengthen warmup_steps, or set max_grad_norm (1.0 is usual), and start again"
    )
