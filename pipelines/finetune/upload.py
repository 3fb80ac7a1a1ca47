"""Fine-tuning's copies in upload_dir, and the run fetched from there where its disk was lost.

UPLOAD_DIR/RUN/
    run.json, in_use.json
    seed-0/                 while it is trained as pipelines/upload/checkpoints.py says, then as finished.py does
    scores.json, ...        of all seeds
"""

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from pipelines.console import say, warn
from pipelines.finetune.epochs import best_epoch
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import SCORES, refuse_other, seed_folder
from pipelines.run_folder import CHECKPOINTS, Events, RunDir
from pipelines.tracking.redact import redact
from pipelines.upload import checkpoints, finished, lease
from pipelines.upload.background import Uploads
from pipelines.upload.claim import claim, may_be_away
from pmlm_core import storage
from pmlm_core.training import checkpoint

_COMMAND = "pmlm finetune"


def home_of(job: Job) -> str:
    """Where the copies of the run lie; `job.run` is the run's folder, not a seed's."""
    assert job.config.upload_dir is not None
    return storage.join(job.config.upload_dir, job.run.name)


def lease_of(job: Job) -> AbstractContextManager[None]:
    """One command at a time, where there is a place to upload to."""
    return nullcontext() if job.config.upload_dir is None else lease.kept(job.run, home_of(job), _COMMAND)


def fetch(job: Job) -> None:
    """Fetch what the store has of this run and this folder lacks: finished seeds, newest checkpoints.

    Raises:
        ConfigError, CheckpointError: what lies there is another run's, or in use by another command; or there is
            nothing of the run here and the store is away.
    """
    if job.config.upload_dir is None:
        return
    home, seeds = home_of(job), [seed_folder(job.run, seed) for seed in job.config.all_seeds()]
    begun = any((run.path / SCORES).exists() or checkpoint.all_steps(run.checkpoints) for run in seeds)
    with may_be_away(home, job.config.upload_dir, can_do_without=begun, say=say):
        claim(job.run, home, _COMMAND, lambda known: refuse_other(known["identity"], job.identity(), home), say)
        for run in seeds:
            if not (run.path / SCORES).exists():
                there = storage.join(home, run.name)
                if fetch_unfinished(run, there, job.task.metric) == "finished":
                    say(f"fetched {run.name}, which is finished, from {redact(there)}")


def fetch_unfinished(
    run: RunDir,
    home: str,
    metric: str,
    *,
    last: Collection[str] = (SCORES,),
    beside: Collection[str] = checkpoints.BESIDE,
) -> Literal["finished", "begun", "damaged", ""]:
    """Fetch what is not finished here: finished as it is there, or its newest checkpoint; says what there was.

    "damaged" is what was finished, or had checkpoints, and has to be done again.

    Args:
        metric: of the task, by which epochs are chosen.
        last: files of which one says that it is finished.
        beside: what goes with its checkpoints.

    Raises:
        OSError, DataError: the store cannot be reached, or refuses.
    """
    damaged = finished.is_there(home)
    if damaged:
        reason = finished.take(home, run.path, last)
        if reason is None:
            shutil.rmtree(run.checkpoints, ignore_errors=True)  # of a training that got less far
            return "finished"
        warn(f"{run.name} in {redact(home)} is damaged ({reason}): what lacks is done again")
    try:
        newest = checkpoint.newest_valid(run.checkpoints, warn)
    except checkpoint.Damaged:
        newest = None
    try:
        fetched = checkpoints.fetch(run, home, newest, say, beside=beside, needs=partial(best_in, metric=metric))
    except checkpoint.Damaged:
        warn(f"no checkpoint of {run.name} in {redact(home)} is whole: it is trained from step 0")
        storage.remove_folder(storage.join(home, CHECKPOINTS))  # else those to come would count as copied
        return "damaged"
    return "damaged" if damaged else "" if fetched == newest else "begun"


def best_in(folder: Path, metric: str) -> str | None:
    """By a checkpoint's own history, the one of the best epoch so far: predicted with if no better one comes."""
    history = checkpoint.read_state(folder)["history"]
    place = best_epoch(history, metric)
    return None if place is None else checkpoint.folder_of(folder.parent, history[place]["step"]).name


def checkpoint_uploads(job: Job) -> Uploads | None:
    """What copies the checkpoints of a seed, which `job.run` is, while it is trained."""
    if job.config.upload_dir is None:
        return None
    home, run = storage.join(job.config.upload_dir, job.run.path.parent.name, job.run.name), job.run
    return Uploads(lambda told: checkpoints.mirror(run, home, 1, told, best_first=True), home, Events(run).add)


def finished_uploads(job: Job) -> Uploads | None:
    """What copies finished seeds, and in the end the run's own files."""
    if job.config.upload_dir is None:
        return None
    home, sent, tidied = home_of(job), finished.Finished(), set[str]()

    def mirror(told: Callable[[str], None]) -> Iterator[str]:
        for run in (seed_folder(job.run, seed) for seed in job.config.all_seeds()):
            if (run.path / SCORES).exists():
                there = storage.join(home, run.name)
                if sent.send(run.path, there):
                    yield run.name
                if run.name not in tidied:
                    storage.remove_folder(storage.join(there, CHECKPOINTS))
                    tidied.add(run.name)
        sent.send(job.run.path, home, below=False)

    return Uploads(mirror, home, lambda kind, text: warn(text) if kind == "warning" else say(text), "finished seeds")
