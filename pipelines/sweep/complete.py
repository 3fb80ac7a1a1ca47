"""Splits that a trained trial has not predicted yet, by the model it left: tests of finalists and winner."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.finetune.conclude import figures_of, paired_files, predict_part
from pipelines.finetune.elsewhere import job_here
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import MODEL, SCORES, read_scores, write_json
from pipelines.finetune.source import TASK_FILE, model_class
from pipelines.finetune.trainee import job_family
from pipelines.sweep.elsewhere import place_of
from pipelines.sweep.trials import COMPLETING, Point, job_at, read_cost, write_cost
from pipelines.team import Team
from pipelines.tracking.journal import Journal


def complete(job: Job) -> None:
    """Predict and score every split of `job.final` that the trial's scores lack.

    Raises:
        DataError: files were changed meanwhile.
        CheckpointError: the model is damaged.
    """
    import torch

    from pmlm_core.training import hardware

    result = read_scores(job.run)
    assert result is not None, "only a finished trial is completed"
    missing = [part for part in job.final if part.split.name not in result["scores"]]
    if not missing:
        return
    precision = hardware.set_up(use_gpu=job.config.use_gpu, threads=job.threads, precision=job.config.precision)
    folder = job.run.path / MODEL
    model = model_class(job.task).from_pretrained(folder, dtype=torch.float32).to(precision.device).eval()
    family = job_family(job)
    splits = {part.split.name: predict_part(job, part, family, model, precision, Team()) for part in missing}
    for part in missing:
        name, scored = part.split.name, splits[part.split.name]
        result["scores"][name] = scored.scores
        if scored.baseline is not None:
            result.setdefault("baselines", {})[name] = scored.baseline
        result["predictions"] += scored.files
        result["rows"][name] = {"used": part.split.used, "in_files": part.split.examples}
        result.setdefault("examples", {})[name] = part.split.identity()
    figures = figures_of(splits)
    journal = Journal(job.run.path)
    step = int(result["epochs"][-1]["step"])
    if figures:
        journal.append(step, figures)
    journal.close()
    result["paired"] = paired_files(job.run)
    description = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
    write_json(folder / TASK_FILE, {**description, "scores": result["scores"], "rows": result["rows"]})
    write_json(job.run.path / SCORES, result)


def complete_winner(job: Job, cpus: float, gpus: float, keeper: str | None) -> None:
    """`complete`, outside Tune, which counts what a trial costs there.

    Args:
        keeper: of the driver's machine, for a node that does not see its folders.
    """
    with place_of(job.run.path, keeper) as place:
        place.fetch_model()
        before, began = read_cost(place.folder), time.monotonic()
        complete(replace(job_here(job, keeper), run=place.run))
        took = time.monotonic() - began
        write_cost(place.folder, before | {COMPLETING: before.get(COMPLETING, 0.0) + took}, took, cpus, gpus)
        place.hand_over()


def finished_job(base: Job, folder: Path, params: dict[str, Any], seed: int) -> Job:
    """The job of a finished trial, to complete it outside Tune."""
    return replace(job_at(base, Point(params, seed), folder), threads=base.config.cpus_per_worker or 1)
