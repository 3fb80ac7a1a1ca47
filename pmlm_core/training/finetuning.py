"""Fine-tuning as a task of the training step: what is counted and which loss is summed, for every kind of task."""

import torch
from torch import Tensor, nn

from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.training.step import Batch, Task

BLANK = "blank"
"""Marks a micro-batch that only keeps a worker in step with the others: it counts nothing and its loss weighs zero."""
_PER_EXAMPLE = ("start_positions", "labels")


def finetuning_task(kind: str, label_smoothing: float = 0.0) -> Task:
    """Sum of losses over examples (rows) that have a label, or over target tokens where text is generated.

    Args:
        kind: of `pmlm_core.tasks.base.Task`.
        label_smoothing: of a generation.
    """
    generates = kind == "generation"
    smoothing = {"smoothing": label_smoothing} if generates else {}
    figures = () if kind == "regression" else ("accuracy",)

    def count(batch: Batch) -> int:
        if BLANK in batch:
            return 0
        if kind in ("generation", "classification"):
            return int((batch["labels"] != IGNORED).sum())
        return len(next(batch[name] for name in _PER_EXAMPLE if name in batch))

    def losses(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        weight = 0.0 if BLANK in batch else 1.0
        output = model(**{name: tensor for name, tensor in batch.items() if name != BLANK}, **smoothing)
        loss_sum = output.loss_sum * weight
        return loss_sum, {"accuracy": output.correct * weight} if figures else {}

    return Task(figures, count, losses)


def blank(batch: Batch) -> dict[str, Tensor]:
    """The first row of `batch`, marked as standing in for none."""
    return {**{name: tensor[:1] for name, tensor in batch.items()}, BLANK: torch.ones(1)}
