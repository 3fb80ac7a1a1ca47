"""Pre-training as a task of the training step: what is counted, which losses are summed, held-out figures."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.objectives import Objective
from pmlm_core.training.reduce import all_sum
from pmlm_core.training.sharding import rest
from pmlm_core.training.step import Batch, Precision, Task


def pretraining_task(objective: Objective) -> Task:
    """Losses of docs/method.md, 1: the sum of AE and PAR (or the one the objective has) over predicted tokens."""
    parts = [name for name, has in (("ae", objective.has_ae), ("par", objective.has_par)) if has]

    def losses(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        output = model(**batch)
        figures = {
            f"{part}_{what}": getattr(output, f"{part}_{field}")
            for part in parts
            for what, field in (("loss", "loss_sum"), ("accuracy", "correct"))
        }
        return torch.stack([figures[f"{part}_loss"] for part in parts]).sum(), figures

    names = [f"{loss}_{what}" for loss in parts for what in ("loss", "accuracy")]
    return Task(tuple(names), count_predictions, losses)


def count_predictions(batch: Batch) -> int:
    """Predicted tokens of a micro-batch; AE and PAR predict the same ones."""
    return int((batch["labels"] != IGNORED).sum())


def count_tokens(batch: Batch) -> int:
    """Tokens of text in a micro-batch, padding left out, appended tokens not counted."""
    if "attention_mask" not in batch:  # left out where nothing is padded
        return batch["input_ids"].numel()
    return int(batch["attention_mask"].sum())


def blank(batch: Batch) -> dict[str, Tensor]:
    """The first row of `batch` with nothing to predict: it weighs nothing, and its worker stays in step with others."""
    first = {name: tensor[:1] for name, tensor in batch.items()}
    return first | {"labels": torch.full_like(first["labels"], IGNORED)}


def measure(batch: Batch) -> tuple[int, int]:
    """What the loop must know of a micro-batch before it is on the device: predictions, tokens; of a `blank` none."""
    predictions = count_predictions(batch)
    return predictions, count_tokens(batch) if predictions else 0


def evaluate(
    model: nn.Module, micro_batches: Iterable[Batch], task: Task, precision: Precision
) -> dict[str, float] | None:
    """Mean loss and accuracy over all workers' held-out micro-batches; None if they predict nothing.

    Every worker calls it with its own share, of equally many micro-batches if the model is sharded (`blank` ones fill
    it up). Call it with the bare model, not with DDP's wrapper, which would only add to the work.
    """
    was_training = model.training
    model.eval()
    names = ("loss", *task.figures)
    count, sums = 0, [0.0] * len(names)
    with torch.no_grad():  # not inference_mode: what a sharded model gathers here, it uses again in training
        for batch in micro_batches:
            with precision.autocast():
                loss_sum, figures = task.losses(model, batch)
            named = {"loss": loss_sum, **figures}
            added = torch.stack([named[name].double() for name in names]).tolist()
            sums = [total + value for total, value in zip(sums, added, strict=True)]
            count += task.count(batch)
    rest(model)
    model.train(was_training)
    total_count, *totals = all_sum([count, *sums], precision.device)
    if not total_count:
        return None
    return {name: value / total_count for name, value in zip(names, totals, strict=True)}
