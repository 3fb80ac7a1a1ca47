"""From a job to a model, its optimizer and its batches, fresh or as the newest good checkpoint left them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.finetune.families import Batch, Family, family_of
from pipelines.finetune.features import Features
from pipelines.finetune.job import Job
from pipelines.finetune.source import build_model, model_class
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.randomness import key
from pmlm_core.training import checkpoint
from pmlm_core.training.finetuning import blank
from pmlm_core.training.grouping import GroupedBatches
from pmlm_core.training.loader import Loader, Share
from pmlm_core.training.optimizer import build_adamw, load_optimizer_tensors
from pmlm_core.training.step import Precision
from pmlm_core.training.window import Window


@dataclass
class Trainee:
    """What is being trained, and where it stands.

    Attributes:
        history: of every finished epoch: number from 1, step, scores.
        state: the checkpoint's JSON state; empty at the start.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    step: int
    window: Window
    history: list[dict[str, Any]]
    state: dict[str, Any]


def trainee(job: Job, precision: Precision, folder: Path | None) -> Trainee:
    """Build the model; take weights, moments, step and history from the checkpoint in `folder`, if there is one.

    Raises:
        CheckpointError: the checkpoint is of another architecture, or the one to start from cannot be loaded.
    """
    config, task = job.config, job.task
    if folder is not None:
        model = model_class(task).from_pretrained(folder, dtype=torch.float32)
    else:
        model = build_model(
            task,
            job.recipe,
            job.source,
            from_scratch=config.from_scratch,
            seed=job.seed,
            dropout=(config.hidden_dropout_prob, config.attention_probs_dropout_prob),
        )
    model.to(precision.device).train()
    optimizer = build_adamw(
        model,
        learning_rate=job.recipe.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        epsilon=config.adam_epsilon,
        weight_decay=job.recipe.weight_decay,
        rel_pos_lr_scale=config.rel_pos_lr_scale,
    )
    if folder is None:
        return Trainee(model, optimizer, 0, Window(), [], {})
    state = checkpoint.read_state(folder)
    load_optimizer_tensors(optimizer, model, checkpoint.read_optimizer(folder), str(folder))
    return Trainee(
        model, optimizer, int(state["step"]), Window.from_json(state["window"]), list(state["history"]), state
    )


def job_family(job: Job) -> Family:
    """The family of the job's task, with the checkpoint's tokenizer."""
    return family_of(job.task, job.recipe, TextTokenizer.load(job.source.path))


class TrainingBatches:
    """The training split cut into batches, and the tensors of each."""

    def __init__(self, job: Job, family: Family) -> None:
        self._job, self._family = job, family
        self._features = Features(Path(job.train.features))
        self.grouped = GroupedBatches(self._features.lengths, job.recipe.batch_size, job.seed)
        self.steps_per_epoch = self.grouped.steps_per_epoch
        self.max_steps = self.steps_per_epoch * job.recipe.num_train_epochs
        self.longest = int(self._features.lengths.max())

    def loader(
        self, precision: Precision, rank: int, world: int, first_step: int, count: Callable[[Batch], int]
    ) -> Loader:
        """This worker's micro-batches from `first_step` on, and what `count` gives of them, asked on the CPU."""

        def rows_of_step(step: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self.grouped.rows(step)
            return rows, np.full(len(rows), self.grouped.epoch_of(step), np.int64)

        return Loader(
            rows_of_step,
            self.make,
            Share(rank, world, self._job.recipe.batch_size, self._job.micro_batch_size),
            first_step=first_step,
            max_steps=self.max_steps,
            device=precision.device,
            measure=lambda batch: (count(batch),),
        )

    def make(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        """Tensors of a micro-batch; of one without rows, at the end of an epoch, a stand-in that weighs nothing."""
        if not len(rows):
            return blank(self.make(np.zeros(1, np.int64), np.zeros(1, np.int64)))
        streams = [
            key(self._job.seed, "noise", epoch, row) for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True)
        ]
        return self._family.collate(self._features.rows(rows), streams=streams)
