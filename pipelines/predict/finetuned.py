"""The fine-tuned folder: what it predicts, how long its inputs may be, and whether it was fine-tuned at all."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.finetune.families import WITHOUT_BEAMS, of_beams
from pipelines.finetune.source import TASK_FILE, Source, model_class, open_source
from pipelines.predict.config import PredictConfig
from pipelines.predict.inferred import inferred_description
from pmlm_core.errors import ConfigError
from pmlm_core.tasks.base import BadRow, Example, Recipe, Task

_ONLY = {
    "question_answering": ("question_column", "context_column", "doc_stride", "n_best"),
    "generation": ("source_column",),
    "text": ("text_column", "text_pair_column"),
}
"""Options that only one kind has."""


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuned model's folder, looked at but not loaded.

    Attributes:
        task: kind, labels and name only; it reads and scores nothing.
        recipe: lengths as in fine-tuning, or as asked for.
        columns: names of columns in fine-tuning, where it was on data of one's own.
        search: what is asked of decoding in place of the folder's generation config.
        generation: the two together.
        inferred: no description lies there, and the configuration alone was asked.
    """

    source: Source
    task: Task
    recipe: Recipe
    columns: Mapping[str, str]
    search: Mapping[str, Any]
    generation: Mapping[str, Any]
    inferred: bool = False


def open_finetuned(config: PredictConfig) -> Finetuned:
    """Look at the folder.

    Raises:
        ConfigError: it is no folder, was never fine-tuned, or cannot do what is asked.
        CheckpointError: its weights are damaged.
    """
    source = open_source(config.model)
    folder = Path(source.path)
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    inferred = not (folder / TASK_FILE).is_file()
    told = (
        inferred_description(folder, saved, _generation(folder), can_be_unanswerable=config.null_threshold is not None)
        if inferred
        else _description(folder / TASK_FILE)
    )
    task = described_task(told)
    head = model_class(task).__name__
    if head not in (saved.get("architectures") or []):
        raise ConfigError(
            f"model {config.model}: {TASK_FILE} says {task.kind}, which {head} does, but config.json names "
            f"{', '.join(saved['architectures'])}; give the folder as `pmlm finetune` left it"
        )
    _check_options(config, task)
    recipe = Recipe(**told["recipe"])
    given = {name: getattr(config, name) for name in ("max_length", "doc_stride") if getattr(config, name) is not None}
    recipe = replace(recipe, **given)
    options = told.get("task_options") or {}
    columns = {name: value for name, value in options.items() if name.endswith("_column") and value}
    search: dict[str, Any] = {}
    generation: dict[str, Any] = {}
    if task.kind == "generation":
        saved_search = _generation(folder)
        search = _search(config, saved_search, recipe)
        if not saved_search.get("max_new_tokens"):
            search = {"max_new_tokens": recipe.max_target_length, **search}  # transformers' own is 20
        generation = saved_search | search
        recipe = replace(recipe, max_target_length=int(generation.get("max_new_tokens", recipe.max_target_length)))
        _check_search(config, generation)
    _check_lengths(config, source, recipe)
    return Finetuned(source, task, recipe, columns, search, generation, inferred)


def described_task(told: Mapping[str, Any]) -> Task:
    """The task that a folder's description names, as far as prediction needs it."""
    return Task(
        name=str(told["task"]),
        kind=told["kind"],
        metric=str(told.get("metric", "")),
        splits=("test",),
        labelled=(),
        recipe=Recipe(**told["recipe"]),
        read=_nothing,
        score=lambda examples, predictions: {},
        write_predictions=lambda folder, split, examples, predictions: [],
        scorers=dict,
        labels=tuple(told.get("labels") or ()),
        can_be_unanswerable=bool(told.get("can_be_unanswerable", False)),
    )


def _nothing(data_dir: str, split: str) -> Iterator[Example | BadRow]:
    return iter(())


def _description(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        described_task(told)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error!r}") from None
    if told["kind"] not in ("classification", "regression", "question_answering", "generation"):
        raise ConfigError(f"{path}: kind '{told['kind']}' is not known; is it of a newer version?")
    return told


def _generation(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def _search(config: PredictConfig, saved: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """What is asked of decoding; for beams that the folder says nothing of, with the recipe's length penalty: a folder
    that was trained to decode without beams cannot hold one, and transformers' own is another."""
    search = config.search()
    beams = int({**saved, **search}.get("num_beams") or 1)
    if beams == 1:
        return WITHOUT_BEAMS | search
    said = {name for name, value in saved.items() if value is not None and value is not False}  # 0 is a penalty, too
    return {name: value for name, value in of_beams(recipe.length_penalty).items() if name not in said} | search


def _check_options(config: PredictConfig, task: Task) -> None:
    kind = task.kind if task.kind in _ONLY else "text"
    others = [name for other, names in _ONLY.items() if other != kind for name in names]
    given = [name for name in others if getattr(config, name) not in (None, 0)]
    if kind != "generation":
        given += [name for name, value in vars(config).items() if name in _GENERATION and value is not None]
    if given:
        raise ConfigError(
            f"{given[0]} has no meaning for a model of {task.kind} ('{task.name}'); leave it out, or see --model"
        )
    if config.null_threshold is not None and not task.can_be_unanswerable:
        raise ConfigError(
            f"null_threshold is for questions that may have no answer, which the model of '{task.name}' knows nothing "
            "of; leave it out, or see --model"
        )


_GENERATION = frozenset(
    {
        *("max_target_length", "min_target_length", "num_beams", "length_penalty", "no_repeat_ngram_size"),
        *("do_sample", "temperature", "top_k", "top_p", "seed"),
    }
)


def _check_search(config: PredictConfig, generation: Mapping[str, Any]) -> None:
    if not generation.get("do_sample"):
        given = [name for name in ("temperature", "top_k", "top_p", "seed") if getattr(config, name) is not None]
        if given:
            raise ConfigError(f"{given[0]} is for sampling; give --do_sample with it")
    if config.length_penalty is not None and int(generation.get("num_beams") or 1) == 1:
        raise ConfigError("length_penalty is for a search with beams; give --num_beams with it")
    least, most = generation.get("min_new_tokens") or 0, generation.get("max_new_tokens")
    if most is not None and least >= most:
        raise ConfigError(f"min_target_length {least} leaves no room for [EOS] below max_target_length {most}")


def _check_lengths(config: PredictConfig, source: Source, recipe: Recipe) -> None:
    needed = recipe.max_length + recipe.max_target_length
    if needed > source.positions:
        what = f"max_length {recipe.max_length}" + (
            f" and max_target_length {recipe.max_target_length}" if recipe.max_target_length else ""
        )
        raise ConfigError(
            f"{what} need {needed} positions and the model in {config.model} has {source.positions}; lower one"
        )
