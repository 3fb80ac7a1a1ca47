"""What is left when a benchmark's sweep has its result: its run in MLflow closed, its winner told and registered."""

import threading
from typing import Any

from pipelines.console import warn
from pipelines.finetune.rundir import MODEL
from pipelines.registry.models import register
from pipelines.sweep.benchmark_sweep import tell
from pipelines.sweep.course import RESULT, Course
from pipelines.sweep.tracking import SweepTracking
from pipelines.sweep.trials import ended_trials
from pipelines.tracking.record import Record
from pipelines.tracking.store import NONE, resolve

_REGISTERING = threading.Lock()
"""MLflow's own idea of the store is the process's, and benchmarks end in threads of their own."""


def end(course: Course, result: dict[str, Any], tracking: SweepTracking) -> None:
    """Close what tracked the sweep, then tell and register its winner."""
    tracking.close("FINISHED", course.trials / result["winner"]["trial"])
    _tell_and_register(course, result)


def end_again(course: Course, result: dict[str, Any]) -> None:
    """The same of a sweep that has its result from an earlier command: only what that one did not come to."""
    record = Record.load(course.run.path)
    arrived = record is None or (record.status == "FINISHED" and record.delivered)
    if not arrived and resolve(course.config.tracking_uri) != NONE:
        tracking = SweepTracking(course)
        for each in ended_trials(course.trials, result["metric"], result["split"]):
            tracking.catch_up(each.folder)
        tracking.close("FINISHED", course.trials / result["winner"]["trial"])
    _tell_and_register(course, result)


def _tell_and_register(course: Course, result: dict[str, Any]) -> None:
    """What the winner's folder says of its registration goes with it to where it is copied."""
    tell(result)
    config, folder = course.config, course.trials / result["winner"]["trial"]
    name = config.register_model or f"{config.experiment_prefix}{course.benchmark.name}"
    record = Record.load(folder)
    if name == "none" or record is None:
        return
    # Once is enough: the alias may have gone to a better one meanwhile, by another sweep or by hand.
    if record.has_registered(name, folder / MODEL) and not record.pending_model:
        return
    if not (folder / MODEL).is_dir():
        warn(
            f"{course.benchmark.name}: the winner's model was removed from {folder}, so nothing is registered as "
            f"{name}; remove {course.run.path / RESULT} and give the command again, and it is trained again"
        )
        return
    with _REGISTERING:
        register(folder, folder / MODEL, name, config.tracking_uri, alias="champion")
