"""Trials are compared by scores that all come from the same scorers, also where a sweep is gone on with."""

from pipelines.sweep.course import TUNE, Course
from pipelines.sweep.trials import ended_trials
from pmlm_core.errors import ConfigError
from pmlm_core.tasks.scores.versions import others


def check_scorers(course: Course) -> None:
    """Refuse to go on with trials that were scored otherwise than new ones would be. Another version of the same
    package is none: nobody keeps an environment for as long as a sweep may lie.

    Raises:
        ConfigError: there are some.
    """
    assert course.job.choose is not None
    ours = course.job.task.scorers()
    scored: dict[str, list[str]] = {}
    for trial in ended_trials(course.trials, course.metric, course.job.choose.split.name):
        if odd := others(ours, trial.result.get("scorers", {})):
            scored.setdefault(odd[0], []).append(trial.folder.name)
    if not scored:
        return
    name, trials = next(iter(scored.items()))
    there = "" if course.config.upload_dir is None else ", and the copies in upload_dir"
    raise ConfigError(
        f"{course.benchmark.name}: trials in {course.trials} were scored by another '{name}' than this pmlm has, so "
        f"their scores do not compare with new ones: {', '.join(trials)}. Start a new sweep with another --run_name, "
        f"or remove these folders and {course.run.path / TUNE}{there}, and they are trained again"
    )
