"""The end of a seed: the best epoch's model predicts every other split, is scored, and is saved to load anywhere."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines.finetune.baseline import baseline_of
from pipelines.finetune.families import Family
from pipelines.finetune.features import Features
from pipelines.finetune.job import Job, Part
from pipelines.finetune.predict import outputs_of, scores_of
from pipelines.finetune.rundir import MODEL, PREDICTIONS, SCORES, write_json
from pipelines.finetune.source import TASK_FILE, model_class
from pipelines.finetune.splits import predictions_name, read_chosen
from pipelines.finetune.trainee import job_family
from pipelines.run_folder import Events, RunDir
from pipelines.team import Team
from pipelines.tracking.journal import Journal
from pipelines.upload.of_workers import present
from pmlm_core import storage
from pmlm_core.durable import force
from pmlm_core.errors import CheckpointError
from pmlm_core.tasks.scores import paired
from pmlm_core.training import checkpoint, hardware
from pmlm_core.training.step import Precision

PAIRED = "paired"
"""Folder of what paired tests are computed from, a file for each labelled split."""


@dataclass(frozen=True)
class Scored:
    """A predicted split.

    Attributes:
        scores: figures; empty for a split without labels.
        files: of the predictions, seen from the run's folder.
        baseline: scores of the trivial baseline, see `baseline_of`.
    """

    scores: dict[str, float]
    files: tuple[str, ...] = ()
    baseline: dict[str, Any] | None = None


def figures_of(splits: Mapping[str, Scored]) -> dict[str, float]:
    """Scores of splits, and those of the trivial baselines, as figures of the journal."""
    found = {f"final/{split}/{name}": value for split, each in splits.items() for name, value in each.scores.items()}
    for split, each in splits.items():
        if each.baseline is not None:
            found |= {f"baseline/{split}/{name}": value for name, value in each.baseline["scores"].items()}
    return found


def conclude(job: Job, team: Team, precision: Precision, journal: Journal, events: Events) -> None:
    """Predict, score and save with the best epoch; the seed's `scores.json` is written last, by rank 0.

    Raises:
        CheckpointError: the checkpoints are gone.
        DataError: files were changed meanwhile.
    """
    name, history = team.agree(_best(job) if team.leads else None)
    folder = present(job.run, name)
    task, family = job.task, job_family(job)
    model = model_class(task).from_pretrained(folder, dtype=torch.float32).to(precision.device).eval()
    splits: dict[str, Scored] = {}
    for part in job.final:
        if team.leads:
            events.add("told", f"seed {job.seed}: predicting split '{part.split.name}', {part.split.used:,} examples")
        splits[part.split.name] = predict_part(job, part, family, model, precision, team)
    if team.leads:
        step = history[-1]["step"]
        # On a second conclusion (killed in the middle of the first) the figures are there already.
        if not any(name.startswith("final/") for entry in journal.entries() for name in entry.metrics):
            journal.append(step, figures_of(splits))
            journal.sync()
        _save(job, folder, splits, history)
    team.agree(None)


def _best(job: Job) -> tuple[str, list[dict[str, Any]]]:
    """The checkpoint of the best epoch, or of the last one if none was scored; and all epochs."""
    newest = checkpoint.newest_valid(job.run.checkpoints, lambda text: None)
    if newest is None:
        raise CheckpointError(f"there are no checkpoints in {job.run.checkpoints} any more; start with a new run_name")
    best = checkpoint.best(job.run.checkpoints) or newest
    return best.name, checkpoint.read_state(newest)["history"]


def predict_part(job: Job, part: Part, family: Family, model: nn.Module, precision: Precision, team: Team) -> Scored:
    """Predict one split and write its predictions; every worker calls it, rank 0 has the scores and the files.

    Of a labelled split also `paired/<split>.json` is written, see `paired_files`.

    Raises:
        DataError: files were changed meanwhile.
    """
    features = Features(Path(part.features))
    batch_size, num_beams = job.config.eval_batch_size, job.recipe.num_beams
    with hardware.full_memory_told(f"give a smaller eval_batch_size than {batch_size}, and the same command goes on"):
        outputs = outputs_of(family, model, features, precision, team, batch_size=batch_size, num_beams=num_beams)
    if not team.leads:
        return Scored({})
    examples = list(read_chosen(job.task, job.config.data_dir, part.split))
    predictions = family.predictions(examples, features, outputs)
    name = part.split.name
    named = predictions_name(job.task, part.split)
    written = job.task.write_predictions(str(job.run.path / PREDICTIONS), named, examples, predictions)
    scores = scores_of(job.task, examples, predictions)
    if scores:
        digest = hashlib.sha256(part.split.identity().encode()).hexdigest()
        content = paired.content(job.task, name, digest, examples, predictions, scores)
        where = str(job.run.path / PAIRED / f"{name}.json")
        storage.write_lines(where, [json.dumps(content, ensure_ascii=False)])  # a line: it may hold 100,000 numbers
    files = tuple(str(Path(file).relative_to(job.run.path)) for file in written)
    return Scored(scores, files, baseline_of(job, part, examples, scores) if scores else None)


def paired_files(run: RunDir) -> list[str]:
    """The files of paired tests, seen from the run's folder, one for each labelled split that was predicted."""
    return sorted(str(path.relative_to(run.path)) for path in (run.path / PAIRED).glob("*.json"))


def _save(job: Job, best: Path, splits: Mapping[str, Scored], history: list[dict[str, Any]]) -> None:
    task, step = job.task, checkpoint.step_of(best.name)
    # Not the best of the history: a member of a population has of what it took over the last epoch's model alone.
    epoch = next((each for each in history if each["step"] == step), history[-1])
    result = {
        "task": task.name,
        "seed": job.seed,
        "metric": task.metric,
        "scores": {name: each.scores for name, each in splits.items()},
        "baselines": {name: each.baseline for name, each in splits.items() if each.baseline is not None},
        "best_epoch": epoch["epoch"],
        "epochs": history,
        "rows": {
            part.split.name: {"used": part.split.used, "in_files": part.split.examples}
            for part in (job.train, *job.final)
        },
        "examples": {part.split.name: part.split.identity() for part in job.final},
        "scorers": dict(task.scorers()),
        "pretrained": _pretrained(job),
        "model": MODEL,
        "predictions": [file for each in splits.values() for file in each.files],
        "paired": paired_files(job.run),
    }
    _save_model(job, best, result)
    write_json(job.run.path / SCORES, result)
    force(job.run.path)  # in which SCORES is new: after a power cut, too, checkpoints are needed no more
    shutil.rmtree(job.run.checkpoints, ignore_errors=True)


def _pretrained(job: Job) -> dict[str, Any]:
    return {**job.source.described(), "weights_used": not job.config.from_scratch}


def _save_model(job: Job, best: Path, result: dict[str, Any]) -> None:
    """The model's folder, whole or not at all: what Hugging Face loads, and the task's description."""
    final = job.run.path / MODEL
    draft = final.with_name(f".writing-{MODEL}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for path in best.iterdir():
        if path.name not in checkpoint.TRAINING_FILES:
            storage.fetch_file(str(path), draft / path.name)
    write_json(draft / TASK_FILE, description(job, result))
    force(draft)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    force(final.parent)


def description(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """What whoever loads the model must know of its task: `pmlm_task.json`."""
    task, options = job.task, job.config.task_options()
    return {
        "format_version": 1,
        "task": task.name,
        "task_options": {name: value for name, value in options.items() if name != "data_dir"},
        "kind": task.kind,
        "labels": list(task.labels),
        "can_be_unanswerable": task.can_be_unanswerable,
        "recipe": dict(vars(job.recipe)),
        "metric": task.metric,
        "scores": result["scores"],
        "scorers": result["scorers"],
        "seed": job.seed,
        "epoch": result["best_epoch"],
        "rows": result["rows"],
        "data": job.identity()["data"],
        "pretrained": result["pretrained"],
    }
