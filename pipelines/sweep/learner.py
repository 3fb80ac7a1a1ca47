"""The search by Optuna: what it is told of trials, while they run and where a search is gone on with.

A trial that was stopped has no final score. Told as if it had, Optuna would take a long schedule that was cut for a bad
place of the space; pruned, it ranks behind all that came to their end, the further it came the better (`TPESampler`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from ray.tune.search.optuna import OptunaSearch

from pipelines.sweep.course import Course
from pipelines.sweep.room import Limited
from pipelines.sweep.trial import FINAL, SCHEDULE, SCORE
from pipelines.sweep.trials import Known
from pmlm_core.randomness import key

_STUDY = "optuna"
_STARTUP_SHARE = 3
"""TPE draws one in so many trials at random before it models anything, and ten at the most."""
_STEPS = 1000
"""Optuna counts steps, we have shares: so many steps are one unit of `Schedule`."""


class Learner(OptunaSearch):
    """`OptunaSearch`, but a trial that Tune has stopped is pruned; Ray's tells its best so far as its final score."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing is learned of a trial before it has ended."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result and FINAL in result:
            result = {**result, SCORE: result[FINAL]}
        elif result:
            if isinstance(self.metric, str) and trial_id not in self._completed_trials:
                self._ot_trials[trial_id].report(result[self.metric], _step(result[SCHEDULE]))
            result = None
        super().on_trial_complete(trial_id, result, error)


def learner(course: Course, metric: str | list[str], mode: str | list[str], known: Sequence[Known]) -> Any:
    """A search by TPE.

    Args:
        known: trials of the search that were begun before.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = max(2, min(10, course.num_samples // _STARTUP_SHARE))
    # From the same seed a sampler that begins anew would propose again what is there already.
    seed = key(course.config.seed, "gone on", len(known)) % 2**32 if known else course.config.seed
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    memory = _remembered(course, mode, known) if known else None
    search = Learner(metric=metric, mode=mode, sampler=sampler, study_name=_STUDY, storage=memory)
    return Limited(search, replace(course.config, max_concurrent_trials=course.at_a_time))


def _remembered(course: Course, mode: str | list[str], known: Sequence[Known]) -> Any:
    """What Optuna would remember: the outcomes of ended trials; those that had only begun are proposed first."""
    modes = mode if isinstance(mode, list) else [mode]
    directions: list[Any] = [{"max": "maximize", "min": "minimize"}[each] for each in modes]
    memory = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=memory, study_name=_STUDY, directions=directions)
    distributions = OptunaSearch.convert_search_space(dict(course.searched))
    for each in known:
        # An option with one value is none of its parameters.
        params = {name: each.point.params[name] for name in distributions}
        if not each.outcome:
            study.enqueue_trial(params)
            continue
        outcome = _outcome(course, each, len(modes))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, **outcome))
    return memory


def _outcome(course: Course, known: Known, objectives: int) -> dict[str, Any]:
    """State, and what was reached, of a trial that has ended."""
    states = optuna.trial.TrialState
    if known.outcome == "failed" or known.score is None:
        return {"state": states.FAIL}
    if known.outcome == "finished":
        return {"state": states.COMPLETE, "values": [known.score, known.seconds][:objectives]}
    epochs = int(known.point.params.get("num_train_epochs", course.job.recipe.num_train_epochs))
    at = _step(course.schedule.time(known.epochs, epochs))
    return {"state": states.PRUNED, "intermediate_values": {at: known.score} if objectives == 1 else {}}


def _step(time: float) -> int:
    return round(_STEPS * time)
