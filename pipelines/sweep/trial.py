"""What Ray Tune starts for a trial: one fine-tuning run in the trial's folder, told to Tune epoch by epoch.

A trial that has ended before says so at once; one that was interrupted goes on from its last checkpoint. It writes only
into its folder: the driver follows that and sends it to MLflow.
"""

import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.finetune.elsewhere import job_here, read_by
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import write_json
from pipelines.run_folder import RunDir, write_record
from pipelines.sweep.elsewhere import Place, place_of
from pipelines.sweep.population import ORIGIN, note_place, take_over
from pipelines.sweep.schedule import Schedule
from pipelines.sweep.trials import (
    FAILURE,
    Ended,
    Point,
    epochs_in,
    job_at,
    point_of,
    read_cost,
    read_ended,
    read_failure,
    was_stopped,
    write_cost,
    write_point,
)
from pmlm_core.errors import ConfigError, NotFinite, TrainingError
from pmlm_core.training.checkpoint import folder_of

SCORE, FINAL, EPOCH, SCHEDULE, POINT_KEY = "score", "final", "epoch", "schedule", "point"
_NONE = float("-inf")


@dataclass(frozen=True)
class Told:
    """What all trials of one phase are told.

    Attributes:
        base: the settled job; `final` holds the splits that are predicted in this phase.
        trials: folder of all trials.
        seed: of trials that name none.
        cpus, gpus: of a trial, for its cost.
        schedule: the time that Tune compares trials by.
        copies: trials hand their state to others (population-based training), and are named by Tune's id.
        keeps_place: Tune may pause trials, so it is handed a token for each epoch.
        wants_model: names of trials whose model will be used: one that was cleared away to save space is trained again.
        keeper: of the driver's machine, for nodes that do not see its folders; None where every node does.
    """

    base: Job
    trials: Path
    metric: str
    seed: int
    cpus: float
    gpus: float
    schedule: Schedule
    copies: bool = False
    keeps_place: bool = False
    wants_model: frozenset[str] = frozenset()
    keeper: str | None = None

    @property
    def split(self) -> str:
        """The split that is chosen by."""
        assert self.base.choose is not None
        return self.base.choose.split.name

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(part.split.name for part in self.base.final)


def trial(config: dict[str, Any], told: Told) -> None:
    """Train one point of the space to its end, or until Tune stops it.

    Raises:
        TrainingError: it failed, now or in an earlier attempt, in a way that another attempt would not mend.
    """
    point = point_of(config.get(POINT_KEY) or config, told.seed)
    name = _tune_id() if told.copies else point.name
    with place_of(told.trials / name, told.keeper, keeps_state=told.copies or told.keeps_place) as place:
        told = replace(told, base=job_here(told.base, told.keeper))
        epochs = int(point.params.get("num_train_epochs", told.base.recipe.num_train_epochs))
        _work(told, point, place, Reporter(told, place, epochs))


def _work(told: Told, point: Point, place: Place, report: "Reporter") -> None:
    """Train the trial in its place, or say how it has ended."""
    folder = place.folder
    ended = read_ended(folder, told.metric, told.split)
    if ended is not None and (folder.name in told.wants_model or not set(told.splits) <= set(ended.result["scores"])):
        place.fetch_model()
    if ended is not None and has_all(ended, told):
        report.again(ended.result["epochs"])
        report.end(ended)
        return
    if was_stopped(folder) and not told.copies:  # earlier, as hopeless
        report.again(report.earlier())
        return
    if failure := read_failure(folder):
        raise TrainingError(failure)
    if told.copies:
        note_place(folder, point, taken=take_over(folder, point))
    try:
        _train(told, point, place, report, ended)
    except (NotFinite, ConfigError) as error:  # they would come again
        report.spend()
        write_json(folder / FAILURE, {"message": str(error), "kind": type(error).__name__})
        place.hand_over()
        raise
    ended = read_ended(folder, told.metric, told.split)
    assert ended is not None, "a trial that ends without an error has written its scores"
    report.end(ended)


def _train(told: Told, point: Point, place: Place, report: "Reporter", ended: Ended | None) -> None:
    from pipelines.finetune.job import as_before, settled_micro_batch
    from pipelines.finetune.loop import finetune, ray_worker
    from pipelines.finetune.trainee import TrainingBatches, job_family
    from pipelines.sweep.complete import complete
    from pipelines.team import Team

    folder = place.folder
    job = replace(job_at(told.base, point, folder), attempt=uuid.uuid4().hex[:12])
    batches = TrainingBatches(job, job_family(job))
    micro_batch_size = settled_micro_batch(job.config, job.recipe, batches.longest)
    threads = job.config.cpus_per_worker or 1
    job = replace(job, micro_batch_size=micro_batch_size, threads=threads)
    write_point(folder, point)
    write_record(job.run, {"identity": job.identity(), "seed": job.seed})
    if ended is not None and ended.has_model:  # trained before; only splits are missing
        complete(job)
        return
    place.fetch_checkpoints(told.metric)
    job = as_before(job)
    if job.config.num_workers == 1:
        finetune(job, Team(report=report))
        return
    from pipelines.train_group import Group, fit, release

    config = job.config
    release(job.run)  # an attempt whose process died
    # Tune tries a trial again, and stops one by ending its process: Ray Train must not start workers anew meanwhile.
    group = Group(
        job.run,
        job.attempt,
        config.num_workers,
        job.threads,
        config.use_gpu,
        max_failures=0,
        reads=read_by(job),
        on_cluster=told.keeper is not None,
    )
    try:
        fit(group, ray_worker, {"job": job}, meanwhile=lambda: report.from_journal(batches.steps_per_epoch))
    finally:
        shutil.rmtree(folder / "ray", ignore_errors=True)
    report.from_journal(batches.steps_per_epoch)


def has_all(ended: Ended, told: Told) -> bool:
    """Whether every split of this phase is predicted, and the model is there if it will be wanted."""
    return set(told.splits) <= set(ended.result["scores"]) and (
        ended.has_model or ended.folder.name not in told.wants_model
    )


class Reporter:
    """Tells Tune of every epoch: its score, the best so far, the time by `Schedule`, and what it has cost."""

    def __init__(self, told: Told, place: Place, epochs: int) -> None:
        """`epochs`: of the trial's whole schedule."""
        self._told, self._place, self._folder, self._epochs = told, place, place.folder, epochs
        self._began, self._before = time.monotonic(), read_cost(self._folder)
        # What an earlier attempt has reached counts; a member of a population may have got other weights since.
        self._best = max((each["scores"].get(told.metric, _NONE) for each in self.earlier()), default=_NONE)
        if told.copies:
            self._best = _NONE
        self._seen, self._works = 0, True

    def earlier(self) -> list[dict[str, Any]]:
        """Scores of the epochs in the journal, the step of each beside them."""
        return epochs_in(self._folder)

    def __call__(self, figures: Mapping[str, float]) -> None:
        """What the loop reports: at the end of an epoch the score is among the figures."""
        metric = self._told.metric
        if metric not in figures:  # a checkpoint in the middle of an epoch
            return
        self._best = figures[metric] if self._told.copies else max(self._best, figures[metric])
        self._tell({metric: figures[metric], **self._at(figures["epoch"])}, int(figures["step"]))

    def again(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Tell epochs of before, so that whoever compares trials knows them; that costs nothing."""
        self._best, self._works = _NONE, False
        for each in epochs:
            value = each["scores"].get(self._told.metric)
            if value is not None:
                self._best = max(self._best, value)
                self._tell({self._told.metric: value, **self._at(each["epoch"])}, None)

    def from_journal(self, steps_per_epoch: int) -> None:
        """Tell what workers of other processes have written since the last call."""
        for each in self.earlier():
            if each["step"] > self._seen:
                self._seen = each["step"]
                self({"step": each["step"], "epoch": each["step"] / steps_per_epoch, **each["scores"]})

    def end(self, ended: Ended) -> None:
        """Tell the score of the finished trial, on the whole split with the recipe's decoding.

        It stands beside the score that trials are compared by: that one is of a part of the split, or decoded greedily.
        """
        schedule, after = self._told.schedule, float(ended.result["epochs"][-1]["epoch"] + 1)
        best = ended.score if self._best == _NONE else self._best
        time = {} if self._told.copies else {SCHEDULE: schedule.ended}  # what has ended takes over nobody's state
        self._tell({SCORE: best, FINAL: ended.score, self._told.metric: ended.score, EPOCH: after, **time}, None)

    def _at(self, epoch: float) -> dict[str, float]:
        return {SCORE: self._best, EPOCH: float(epoch), SCHEDULE: self._told.schedule.time(epoch, self._epochs)}

    def spend(self) -> dict[str, float]:
        """Write down what the trial has cost so far."""
        if not self._works:
            return self._before
        seconds = time.monotonic() - self._began
        return write_cost(self._folder, self._before, seconds, self._told.cpus, self._told.gpus)

    def _tell(self, figures: dict[str, Any], step: int | None) -> None:
        """Report; `step` names the checkpoint that the epoch left, where there is one."""
        from ray import tune

        told = {**figures, "seconds": self.spend()["seconds"], "folder": self._folder.name, "step": step or 0}
        if step is None or self._told.base.config.num_workers > 1:
            self._hand_over()
            tune.report(told)
            return
        # Tune may stop or pause the trial at this report; the checkpoint is written in the background until then.
        state = _published(self._folder, step)
        self._hand_over()
        if not (self._told.copies or self._told.keeps_place):
            tune.report(told)
            return
        with tempfile.TemporaryDirectory(prefix=".token-", dir=self._folder) as place:
            if self._told.copies:
                shutil.copytree(state, place, dirs_exist_ok=True)
            (Path(place) / ORIGIN).write_text(json.dumps({"trial": self._folder.name, "step": step}))
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(place))

    def _hand_over(self) -> None:
        if self._works:
            self._place.hand_over()


def _published(folder: Path, step: int) -> Path:
    """The checkpoint of a step, once it is written: that happens in the background, and ends with a rename."""
    path = folder_of(RunDir(folder).checkpoints, step)
    deadline = time.monotonic() + 600.0
    while not path.is_dir():
        if time.monotonic() > deadline:
            raise TrainingError(f"the checkpoint {path} was not written within 10 minutes; is the disk full?")
        time.sleep(0.02)
    return path


def _tune_id() -> str:
    from ray import tune

    return f"member-{tune.get_context().get_trial_id()}"
