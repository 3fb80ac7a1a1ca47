"""What a run is: options and recipe settled, data and checkpoint looked at, everything refused that cannot be."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipelines.console import say, warn
from pipelines.finetune.config import DATA, RECIPE, FinetuneConfig
from pipelines.finetune.source import Source, open_source
from pipelines.finetune.splits import Rejects, Split, survey
from pipelines.run_folder import RunDir
from pipelines.there import check_folder
from pmlm_core import storage
from pmlm_core.errors import ConfigError, DataError, near
from pmlm_core.tasks.base import Recipe, Task
from pmlm_core.tasks.files import NoFile
from pmlm_core.tasks.registry import OPTIONS, get_task
from pmlm_core.tasks.scoring import figures_of
from pmlm_core.training.batching import fitting_rows, micro_batch_size
from pmlm_core.training.resuming import micro_batch_before

ONLY = {
    "generation": (
        *("max_target_length", "label_smoothing", "target_mask_prob", "num_beams", "length_penalty"),
        *("min_target_length", "no_repeat_ngram_size"),
    ),
    "question_answering": ("doc_stride",),
}
"""Options that only one kind of task has."""


@dataclass(frozen=True)
class Part:
    """A split, or a subset of one, and the folder of its features ("" before they are made)."""

    split: Split
    training: bool = False
    features: str = ""


@dataclass(frozen=True)
class Job:
    """Everything that a worker must be told; the same for all seeds but `seed`, `run` and `attempt`.

    Attributes:
        config: with absolute paths.
        recipe: the task's, with what the options override.
        source: the checkpoint to start from.
        train: what is trained on.
        choose: what epochs are chosen by; None where there is no labelled split besides.
        final: every split that is predicted, and scored if it can be, at the end.
        run: folder of this seed.
    """

    config: FinetuneConfig
    recipe: Recipe
    source: Source
    train: Part
    choose: Part | None
    final: tuple[Part, ...]
    run: RunDir
    seed: int = 0
    attempt: str = ""
    micro_batch_size: int = 1
    threads: int = 1

    @property
    def task(self) -> Task:
        return settled_task(self.config)

    @property
    def cache_dir(self) -> Path:
        return Path(self.config.cache_dir or Path(self.config.output_dir) / "features")

    def identity(self) -> dict[str, Any]:
        """What decides the result, besides the seed."""
        given = {**self.config.deciding(), **vars(self.recipe)}
        data = {self.train.split.name: self.train.split.identity()}
        if self.choose is not None:
            data[self.choose.split.name] = self.choose.split.identity()
        start = [self.source.sha256, self.source.tokenizer]
        return json.loads(json.dumps({"options": given, "data": data, "model": start}))

    def name(self) -> str:
        """The run's folder: as given, or derived from what decides the result."""
        if self.config.run_name is not None:
            return self.config.run_name
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.config.task}{'-scratch' * self.config.from_scratch}-{digest}"


def settle(config: FinetuneConfig) -> tuple[Job, Rejects]:
    """Look at checkpoint and data and settle what the configuration leaves open; nothing is written.

    Raises:
        ConfigError: options contradict the checkpoint or the task.
        DataError: files are missing or unusable.
    """
    check_folder("data_dir", config.data_dir, DATA)
    task = settled_task(config)
    if config.metric_for_best_model is not None and config.metric_for_best_model not in figures_of(task):
        raise ConfigError(
            f"metric_for_best_model '{config.metric_for_best_model}' is no figure of task '{task.name}'"
            f"{near(config.metric_for_best_model, figures_of(task)) or ';'} it has {', '.join(figures_of(task))}"
        )
    if len(task.splits) < 2:
        raise ConfigError(
            f"task '{task.name}' has no split to train on, only '{task.splits[0]}'"
            + "; a model of mnli predicts it" * (task.name == "ax")
        )
    config = replace(
        config,
        data_dir=config.data_dir if "://" in config.data_dir else storage.absolute(config.data_dir),
        model=config.model if storage.is_remote(config.model) else storage.absolute(config.model),
        output_dir=storage.absolute(config.output_dir),
        upload_dir=config.upload_dir and storage.normalise(config.upload_dir),
        cache_dir=None if config.cache_dir is None else storage.absolute(config.cache_dir),
    )
    if task.name == "classification":
        config = replace(config, labels=list(task.labels))  # found in the training file, once
    source = open_source(config.model)
    recipe = settled_recipe(config, task, source)
    micro_batch_size(recipe.batch_size, config.num_workers, config.micro_batch_size, limit=1)  # before the files
    rejects = Rejects()
    train = survey(task, config.data_dir, task.train_split, config.max_train_rows, rejects, strict=config.strict)
    others = _other_splits(config, task, rejects)
    dev = _dev(task, others)
    choose = None if dev is None else Part(_at_most(dev, config.max_eval_rows))
    final = tuple(Part(_at_most(split, config.max_predict_rows)) for split in others)
    job = Job(config, recipe, source, Part(train, training=True), choose, final, RunDir(Path()))
    return replace(job, run=RunDir(Path(config.output_dir) / job.name())), rejects


def settled_task(config: FinetuneConfig) -> Task:
    """The task, with the figure that was asked for to choose epochs by.

    Raises:
        ConfigError: no such task, or options that it does not have.
    """
    task = get_task(config.task, **config.task_options())
    return replace(task, metric=config.metric_for_best_model or task.metric)


def settled_recipe(config: FinetuneConfig, task: Task, source: Source) -> Recipe:
    """The task's recipe with what was given in its place.

    Raises:
        ConfigError: a length that was asked for does not fit the model's positions; one of the recipe is lowered aloud.
    """
    given = {name: getattr(config, name) for name in RECIPE if getattr(config, name) is not None}
    for kind, names in ONLY.items():
        if task.kind != kind and (odd := [name for name in names if name in given]):
            raise ConfigError(f"{odd[0]} has no meaning for {task.kind} (task '{task.name}'); leave it out")
    recipe = replace(task.recipe, **given)
    if task.kind == "generation" and recipe.max_target_length < 2:
        raise ConfigError("max_target_length must be 2 or more: a token and the closing [EOS]")
    if task.kind == "generation" and recipe.min_target_length >= recipe.max_target_length:
        raise ConfigError(
            f"min_target_length {recipe.min_target_length} leaves no room for [EOS] below max_target_length "
            f"{recipe.max_target_length}"
        )
    needed = recipe.max_length + recipe.max_target_length
    if needed <= source.positions:
        return recipe
    if task.kind == "generation":
        warn(
            f"max_length {recipe.max_length} and max_target_length {recipe.max_target_length} need {needed} positions, "
            f"the model has {source.positions}: the learned ones are repeated for the rest"
        )
        return recipe
    if config.max_length is not None:
        raise ConfigError(
            f"max_length {recipe.max_length} is more than the {source.positions} positions of the model in "
            f"{config.model}; lower it"
        )
    warn(
        f"the recipe's max_length {recipe.max_length} is more than the model's {source.positions} positions: "
        f"it is lowered to {source.positions}"
    )
    return replace(recipe, max_length=source.positions)


def _other_splits(config: FinetuneConfig, task: Task, rejects: Rejects) -> list[Split]:
    """Every split but the one trained on that is there; one that is not is told, and an error if epochs need it or
    its file was named."""
    named = {"dev": config.validation_file, "test": config.test_file}
    found = []
    for name in task.splits[1:]:
        try:
            found.append(survey(task, config.data_dir, name, None, rejects, strict=config.strict))
        except NoFile:
            if named.get(name) is not None or (name == task.dev_split and task.name not in OPTIONS):
                raise
            say(f"split '{name}' has no file and is left out")
        except DataError as error:
            if config.strict or (name == task.dev_split and task.name not in OPTIONS):
                raise
            warn(f"split '{name}' is left out: {error}")
    return found


def _dev(task: Task, found: list[Split]) -> Split | None:
    return next((split for split in found if split.name == task.dev_split), None)


def _at_most(split: Split, limit: int | None) -> Split:
    return split if limit is None else replace(split, used=min(limit, split.examples))


def with_features(job: Job, folders: Mapping[tuple[str, int, bool], Path]) -> Job:
    """The job with the folders of its features, by (split, examples used, for training)."""

    def placed(part: Part) -> Part:
        return replace(part, features=str(folders[part.split.name, part.split.used, part.training]))

    return replace(
        job,
        train=placed(job.train),
        choose=job.choose and placed(job.choose),
        final=tuple(placed(part) for part in job.final),
    )


def settled_micro_batch(config: FinetuneConfig, recipe: Recipe, longest: int) -> int:
    """Rows of one forward pass: as asked for, or what divides the batch evenly within the token budget.

    Args:
        longest: tokens of the longest feature.
    """
    limit = fitting_rows(longest, use_gpu=config.use_gpu)
    return micro_batch_size(recipe.batch_size, config.num_workers, config.micro_batch_size, limit)


def as_before(job: Job) -> Job:
    """The job of a seed, with the micro-batches of its newest checkpoint where no others are asked for."""
    kept = micro_batch_before(job.run.checkpoints, job.recipe.batch_size, use_gpu=job.config.use_gpu)
    if job.config.micro_batch_size is not None or kept is None:
        return job
    return replace(job, micro_batch_size=kept)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How two identities differ, in words."""
    options = [
        f"{name} was {before['options'].get(name)!r} and is {now['options'].get(name)!r}"
        for name in sorted({*before["options"], *now["options"]})
        if before["options"].get(name) != now["options"].get(name)
    ]
    data = [
        f"the examples of split '{name}' are others"
        for name in now["data"]
        if before["data"].get(name) != now["data"][name]
    ]
    model = ["the checkpoint's weights or tokenizer are others"] if before["model"] != now["model"] else []
    return [*options, *data, *model]


assert {field.name for field in fields(Recipe)} == set(RECIPE)
