"""Trials are compared by scores that all come from the same scorers, also where a sweep is gone on with."""

import re
from collections.abc import Mapping

from pipelines.sweep.course import TUNE, Course
from pipelines.sweep.trials import ended_trials
from pmlm_core.errors import ConfigError

_VERSION = re.compile(r"(?<=\w) \d+(\.\d+)+\w*")
_LEFT_OUT = "left out"
"""Of a scorer that a machine lacks; no trial is chosen by its figures, and the next machine may have it."""


def check_scorers(course: Course) -> None:
    """Refuse to go on with trials that were scored otherwise than new ones would be. Another version of the same
    package is none: nobody keeps an environment for as long as a sweep may lie.

    Raises:
        ConfigError: there are some.
    """
    assert course.job.choose is not None
    ours = _plain(course.job.task.scorers())
    others: dict[str, list[str]] = {}
    for trial in ended_trials(course.trials, course.metric, course.job.choose.split.name):
        theirs = _plain(trial.result.get("scorers", {}))
        if odd := [name for name in ours if name in theirs and theirs[name] != ours[name]]:
            others.setdefault(odd[0], []).append(trial.folder.name)
    if not others:
        return
    name, trials = next(iter(others.items()))
    there = "" if course.config.upload_dir is None else ", and the copies in upload_dir"
    raise ConfigError(
        f"{course.benchmark.name}: trials in {course.trials} were scored by another '{name}' than this pmlm has, so "
        f"their scores do not compare with new ones: {', '.join(trials)}. Start a new sweep with another --run_name, "
        f"or remove these folders and {course.run.path / TUNE}{there}, and they are trained again"
    )


def _plain(scorers: Mapping[str, str]) -> dict[str, str]:
    """Without the versions of packages.

    >>> _plain({"accuracy": "accuracy; scikit-learn 1.8.0; percent", "meteor": "METEOR 1.5: left out, no Java"})
    {'accuracy': 'accuracy; scikit-learn; percent'}
    """
    return {name: _VERSION.sub("", text) for name, text in scorers.items() if _LEFT_OUT not in text}
