"""The sweep in MLflow: a parent run per benchmark, a child per trial, all sent by the driver from the trials' journals.

Trials know nothing of MLflow: it would take each of their processes seconds to import, and many writers make a SQLite
store slow.
"""

import contextlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipelines.console import warn
from pipelines.finetune.job import Job
from pipelines.finetune.record import files_of, has_arrived, params_of, tags_of
from pipelines.finetune.rundir import SCORES
from pipelines.run_folder import RunDir
from pipelines.sweep.board import in_words
from pipelines.sweep.course import RESULT, Course
from pipelines.sweep.trials import Point, job_at, read_cost
from pipelines.tracking.artifacts import log_artifacts
from pipelines.tracking.journal import FILE_NAME, Journal, read
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink


class SweepTracking:
    """The way to MLflow of one benchmark's sweep. No call waits for the server, but `close`."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._sinks: dict[str, MlflowSink] = {}
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="sweep-tracking")
        self._waiting: list[Future[None]] = []
        config, run = course.config, course.run
        self._journal = Journal(run.path, say=warn)
        self._ended = _last_step(run.path)
        tags = {
            **tags_of(course.job),
            **{"stage": "sweep", "benchmark": course.benchmark.name, "sweep": run.path.parent.name},
            **{"strategy": config.strategy, "metric": course.metric, "mode": course.benchmark.mode},
            "searched": json.dumps(list(course.searched)),
        }
        tags.pop("finetune_run")
        place = {"output_dir": course.job.config.output_dir}  # absolute: whoever compares looks there
        params = {
            **asdict(config),
            **place,
            "searched": course.identity()["options"]["searched"],
            "seeds": list(course.seeds),
        }
        self._parent = MlflowSink(
            run.path, config.tracking_uri, course.job.config.experiment_name, run.path.parent.name, params, tags
        )

    def begin(self, trial: str, point: Point, phase: str) -> None:
        """A trial starts, or goes on."""
        if trial in self._sinks:
            return
        course, folder = self._course, self._course.trials / trial
        job = replace(job_at(course.job, point, folder), threads=course.config.cpus_per_trial)
        tags = {
            **tags_of(job),
            **{"stage": "sweep-trial", "benchmark": course.benchmark.name, "sweep": course.run.path.parent.name},
            **{"strategy": course.config.strategy, "phase": phase, "configuration": point.configuration},
            **{"metric": course.metric, "mode": course.benchmark.mode, "trial": trial},
            "searched": json.dumps(list(course.searched)),
        }
        tags.pop("finetune_run")
        self._sinks[trial] = MlflowSink(
            folder, course.config.tracking_uri, job.config.experiment_name,
            f"{in_words(point.params)}, seed {point.seed}",
            {**_params(job), "upload_dir": course.config.upload_dir}, tags, parent=course.run.path,
        )  # fmt: skip

    def ship(self, trial: str, step: int) -> None:
        """Figures of a trial up to a step are safe."""
        if trial in self._sinks:
            self._sinks[trial].ship(step)

    def end(self, trial: str, outcome: str, failure: str | None = None) -> None:
        """A trial has ended: finished, stopped or failed, and why."""
        sink = self._sinks.pop(trial, None)
        if sink is None:
            return
        sink.tag("outcome", outcome)
        sink.tag("failure", (failure or "")[:1000])  # an earlier attempt's stays there otherwise
        folder = self._course.trials / trial
        _note_cost(folder)
        status = "FAILED" if outcome == "failed" else "FINISHED"
        self._waiting.append(self._pool.submit(self._finish, sink, folder, status))

    def standing(self, best: float | None, counts: dict[str, int]) -> None:
        """How the sweep stands, after another trial has ended; `best` is the best final score."""
        self._ended += 1
        figures = {f"trials/{name}": float(count) for name, count in counts.items()}
        if best is not None:
            figures[f"best/{self._course.metric}"] = best
        self._journal.append(self._ended, figures)
        self._parent.ship(self._ended)

    def catch_up(self, folder: Path) -> None:
        """Send what an earlier command, killed meanwhile, has left of a trial that had ended."""
        record = Record.load(folder)
        if record is not None and not has_arrived(folder, record):
            record.tags["outcome"] = "finished"
            record.save(folder)
            self.update(folder)

    def update(self, folder: Path) -> None:
        """Send figures and files that a finished trial got later."""
        record = Record.load(folder)
        if record is None:
            return
        _note_cost(folder, later=1)  # figures of a step that was sent are not sent again
        sink = MlflowSink(
            folder, self._course.config.tracking_uri, record.experiment, record.run_name, record.params, record.tags,
            parent=self._course.run.path,
        )  # fmt: skip
        self._waiting.append(self._pool.submit(self._finish, sink, folder, "FINISHED"))

    def interrupt(self) -> None:
        """The driver ends before the sweep: trials that run go on with the next command."""
        for trial in list(self._sinks):
            sink = self._sinks.pop(trial, None)  # Tune's thread may be ending it just now
            if sink is not None:
                sink.finish("KILLED", timeout=5.0)

    def close(self, status: str, winner: Path | None, reason: str = "") -> None:
        """Send everything that is left; `reason` says why there is no winner."""
        for future in self._waiting:
            future.result()
        self._pool.shutdown()
        course = self._course
        if reason:
            self._parent.tag("failure", reason[:1000])
        if winner is not None:
            self._parent.tag("winner_run_id", run=winner)
            self._parent.tag("winner", winner.name)
        costs = [read_cost(folder) for folder in course.trials.glob("*") if folder.is_dir()]
        figures = {
            f"cost/{name}": sum(cost[name] for cost in costs) for name in ("seconds", "cpu_seconds", "gpu_seconds")
        }
        if status == "FINISHED":
            self._ended += 1
            self._journal.append(self._ended, figures)
        self._parent.finish(status)
        self._journal.close()
        if status == "FINISHED":
            files = [name for name in (RESULT,) if (course.run.path / name).is_file()]
            log_artifacts(course.run.path, files, course.config.tracking_uri, warn=warn)

    def _finish(self, sink: MlflowSink, folder: Path, status: str) -> None:
        with contextlib.suppress(Exception):  # tracking ends no sweep; what is left is told and sent by `pmlm sync`
            sink.finish(status)
            if status == "FINISHED" and (folder / SCORES).is_file():
                log_artifacts(folder, files_of(RunDir(folder)), self._course.config.tracking_uri, warn=warn)


def _params(job: Job) -> dict[str, Any]:
    """A trial's parameters. How many rows a pass has, unless it was asked for, is settled only where it is trained."""
    params, asked = params_of(job), job.config.micro_batch_size
    del params["micro_batch_size"]
    return params if asked is None else {**params, "micro_batch_size": asked}


def run_id_of(folder: Path) -> str | None:
    """A trial's run in MLflow."""
    record = Record.load(folder)
    return record.run_id if record else None


def _note_cost(folder: Path, later: int = 0) -> None:
    """Put what the trial has cost into its journal, so many steps after its last one."""
    step = _last_step(folder) + later
    if folder.is_dir():
        journal = Journal(folder, say=warn)
        journal.append(step, {f"cost/{name}": value for name, value in read_cost(folder).items()})
        journal.close()


def _last_step(folder: Path) -> int:
    path = folder / FILE_NAME
    return max((entry.step for entry, _ in read(path, 0)), default=0) if path.exists() else 0
