"""Predictions for the features of a split, shared out over the workers, and their scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.finetune.families import Family
from pipelines.finetune.features import Features
from pipelines.team import Team
from pmlm_core.tasks.base import Task
from pmlm_core.tasks.scoring import is_labelled
from pmlm_core.training.step import Precision


def outputs_of(
    family: Family,
    model: nn.Module,
    features: Features,
    precision: Precision,
    team: Team,
    *,
    batch_size: int,
    num_beams: int,
) -> list[Any]:
    """The model's output for every feature, in order, on every rank.

    Args:
        batch_size: rows of one forward pass; rows of one batch are alike in length.
    """
    order = np.argsort(-features.lengths, kind="stable")
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    found: list[tuple[int, Any]] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for numbers in batches[team.rank :: team.world]:
            batch = family.collate(features.rows(numbers), streams=None)
            on_device = {name: tensor.to(precision.device) for name, tensor in batch.items()}
            with precision.autocast():
                outputs = family.infer(model, on_device, num_beams=num_beams)
            found += zip(numbers.tolist(), outputs, strict=True)
    model.train(was_training)
    gathered = [pair for share in team.gather(found) for pair in share]
    return [output for _, output in sorted(gathered, key=lambda pair: pair[0])]


def scores_of(task: Task, examples: Sequence[Any], predictions: dict[str, Any]) -> dict[str, float]:
    """Figures of the task over the examples that have labels; empty if none has.

    Figures that are not finite (a correlation of constant predictions) count as 0.
    """
    if not any(is_labelled(example) for example in examples):
        return {}
    figures = task.score(examples, predictions)
    return {name: float(value) if np.isfinite(value) else 0.0 for name, value in figures.items()}
