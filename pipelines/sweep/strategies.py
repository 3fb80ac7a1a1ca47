"""A strategy's name as Ray Tune's parts: what to search, who proposes, who stops."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from pipelines.sweep.course import Course
from pipelines.sweep.room import InOrder
from pipelines.sweep.trial import POINT_KEY, SCHEDULE, SCORE
from pipelines.sweep.trials import Known, Point
from tune_spaces.registry import ends

_KEPT = {"asha": 4, "hyperband": 3}
"""Of so many trials the best goes on at each rung, and the next rung lies so many times as far: Ray's own figures."""


@dataclass(frozen=True)
class Plan:
    """The search of one benchmark, in Tune's terms.

    Attributes:
        param_space: domains and grids by option.
        num_samples: how often the space is drawn from, or the grid gone through.
        copies, keeps_place: see `pipelines.sweep.trial.Told`.
        remembers: what is proposed depends on what has ended, so Tune's own state is gone on with. Other searches
            propose the same points again, and those that have ended are found on disk.
    """

    param_space: dict[str, Any]
    num_samples: int
    search_alg: Any = None
    scheduler: Any = None
    metric: str | None = SCORE
    copies: bool = False
    keeps_place: bool = False
    remembers: bool = False


def plan_of(course: Course, known: Sequence[Known] = ()) -> Plan:
    """The search that the course's strategy means.

    Args:
        known: trials of this search that were begun before, for where Tune's own state is not there to be gone on with.
    """
    space, samples = dict(course.searched), course.num_samples
    at_random = InOrder(course.config)
    match course.config.strategy:
        case "paper_grid":
            # A configuration is trained with all seeds before the next: until then its models have to be kept.
            configurations = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
            return every(course, [Point(each, seed) for each in configurations for seed in course.seeds])
        case "random":
            return Plan(space, samples, at_random, _median(course))
        case "optuna":
            from pipelines.sweep.learner import learner

            search = learner(course, SCORE, "max", known)
            return Plan(space, samples - _ended(known), search, _median(course), remembers=True)
        case "optuna_pareto":
            from pipelines.sweep.learner import learner

            search = learner(course, [SCORE, "seconds"], ["max", "min"], known)
            return Plan(space, samples - _ended(known), search, metric=None, remembers=True)
        case "asha":
            return Plan(space, samples, at_random, _asha(course))
        case "hyperband":
            return Plan(space, samples, at_random, _hyperband(course), keeps_place=True)
        case "pbt":
            return _population(course, at_random)
    raise AssertionError(course.config.strategy)


def every(course: Course, points: Sequence[Point]) -> Plan:
    """Each of these points once, in their order; a grid of options Tune would go through by the options' names."""
    from ray import tune

    values = [{**point.params, "seed": point.seed} for point in points]
    return Plan({POINT_KEY: tune.grid_search(values)}, 1, InOrder(course.config))


def _asha(course: Course) -> Any:
    from ray.tune.schedulers import AsyncHyperBandScheduler

    factor = _KEPT["asha"]
    rungs = course.schedule.rungs(factor)
    if not rungs:
        return None
    # Ray has a rung at `max_t` itself, and ends trials there: a little less, and what was trained to its end is scored.
    return AsyncHyperBandScheduler(
        time_attr=SCHEDULE, max_t=factor**rungs - 0.5, grace_period=1, reduction_factor=factor, stop_last_trials=False
    )  # type: ignore[arg-type]


def _hyperband(course: Course) -> Any:
    from ray.tune.schedulers import HyperBandScheduler

    factor = _KEPT["hyperband"]
    rungs = course.schedule.rungs(factor)
    if not rungs:
        return None
    return HyperBandScheduler(time_attr=SCHEDULE, max_t=factor**rungs, reduction_factor=factor, stop_last_trials=False)


def _median(course: Course) -> Any:
    """Stops what is below the median of the others at the same time; None where that is not wanted."""
    from ray.tune.schedulers import MedianStoppingRule

    schedule = course.schedule
    if not course.config.stop_hopeless or not schedule.can_stop:
        return None

    class Median(MedianStoppingRule):
        """Lets a trial go on where there are too few to compare it with; Tune's would pause it after every epoch."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result[SCHEDULE] < schedule.full:
                return super().on_trial_result(tune_controller, trial, result)
            self._results[trial].append(result)  # it was trained to its end: it is scored, and compared with
            return self.CONTINUE

        def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
            return self.CONTINUE

    return Median(time_attr=SCHEDULE, grace_period=1, min_samples_required=3)


def _ended(known: Iterable[Known]) -> int:
    return sum(bool(each.outcome) for each in known)


def _population(course: Course, at_random: Any) -> Plan:
    from ray.tune.schedulers import PopulationBasedTraining

    mutable: dict[str, Any] = {
        name: domain for name in course.benchmark.mutable if _is_open(domain := course.searched.get(name))
    }
    changes = PopulationBasedTraining(
        time_attr=SCHEDULE,
        perturbation_interval=course.schedule.time(0.5, course.max_epochs),  # at every epoch, however that is rounded
        burn_in_period=1,
        hyperparam_mutations=mutable,
        custom_explore_fn=partial(_within, limits={name: ends(domain) for name, domain in mutable.items()}),
        quantile_fraction=0.25 if course.num_samples >= 4 else 0.5,
        log_config=False,
        require_attrs=False,
    )
    return Plan(dict(course.searched), course.num_samples, at_random, changes, copies=True, remembers=True)


def _is_open(domain: Any) -> bool:
    """Whether there is something to change: a fixed value is none."""
    return hasattr(domain, "sample")


def _within(config: dict[str, Any], limits: dict[str, list[Any]]) -> dict[str, Any]:
    """A changed configuration, back inside the space: changes multiply and would leave it after some epochs."""
    clipped = {name: min(max(config[name], min(values)), max(values)) for name, values in limits.items() if values}
    return {**config, **clipped}
