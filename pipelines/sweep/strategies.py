"""A strategy's name as Ray Tune's parts: what to search, who proposes, who stops."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.sweep.course import Course
from pipelines.sweep.room import InOrder, Limited, at_a_time
from pipelines.sweep.trial import EPOCH, SCORE
from pipelines.sweep.trials import Known
from pmlm_core.randomness import key
from tune_spaces.registry import ends

_STUDY = "optuna"
_STARTUP_SHARE = 3
"""TPE draws one in so many trials at random before it models anything, and ten at the most."""


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
    from ray import tune

    space, samples = dict(course.searched), course.num_samples
    # An epoch is told when it has ended; one more is told when the trial's model is scored and saved, and before that
    # no scheduler may end a trial for having come to its end.
    limit = course.max_epochs + 1
    at_random = InOrder(course.config)
    match course.config.strategy:
        case "paper_grid":
            grid = {name: tune.grid_search(list(values)) for name, values in space.items()}
            return Plan({**grid, "seed": tune.grid_search(list(course.seeds))}, 1, at_random)
        case "random":
            return Plan(space, samples, at_random, _median(course))
        case "optuna":
            search = _optuna(course, SCORE, "max", known)
            return Plan(space, samples - _ended(known), search, _median(course), remembers=True)
        case "optuna_pareto":
            search = _optuna(course, [SCORE, "seconds"], ["max", "min"], known)
            return Plan(space, samples - _ended(known), search, metric=None, remembers=True)
        case "asha":
            from ray.tune.schedulers import AsyncHyperBandScheduler

            stops = AsyncHyperBandScheduler(time_attr=EPOCH, max_t=limit, grace_period=min(course.grace_epochs, limit))
            return Plan(space, samples, at_random, stops)
        case "hyperband":
            from ray.tune.schedulers import HyperBandScheduler

            return Plan(space, samples, at_random, HyperBandScheduler(time_attr=EPOCH, max_t=limit), keeps_place=True)
        case "pbt":
            return _population(course, at_random)
    raise AssertionError(course.config.strategy)


def _median(course: Course) -> Any:
    """Stops what is below the median of the others at the same epoch; None where that is not wanted."""
    from ray.tune.schedulers import MedianStoppingRule

    if not course.config.stop_hopeless:
        return None

    class Median(MedianStoppingRule):
        """Lets a trial go on where there are too few to compare it with; Tune's would pause it after every epoch."""

        def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
            return self.CONTINUE

    return Median(time_attr=EPOCH, grace_period=course.grace_epochs, min_samples_required=3)


def _ended(known: Iterable[Known]) -> int:
    return sum(bool(each.outcome) for each in known)


def _optuna(course: Course, metric: Any, mode: Any, known: Sequence[Known]) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = max(2, min(10, course.num_samples // _STARTUP_SHARE))
    # From the same seed a sampler that begins anew would propose again what is there already.
    seed = key(course.config.seed, "gone on", len(known)) % 2**32 if known else course.config.seed
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    memory = _remembered(course, mode, known) if known else None
    search = OptunaSearch(metric=metric, mode=mode, sampler=sampler, study_name=_STUDY, storage=memory)
    return Limited(search, course.config) if at_a_time(course.config) else search


def _remembered(course: Course, mode: Any, known: Sequence[Known]) -> Any:
    """What Optuna would remember: the outcomes of ended trials; those that had only begun are proposed first."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

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
        failed = each.outcome == "failed" or each.score is None
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        values: Any = None if failed else [each.score, each.seconds][: len(modes)]
        study.add_trial(
            optuna.trial.create_trial(state=state, values=values, params=params, distributions=distributions)
        )
    return memory


def _population(course: Course, at_random: Any) -> Plan:
    from ray.tune.schedulers import PopulationBasedTraining

    mutable: dict[str, Any] = {
        name: domain for name in course.benchmark.mutable if _is_open(domain := course.searched.get(name))
    }
    changes = PopulationBasedTraining(
        time_attr=EPOCH,
        perturbation_interval=1,
        burn_in_period=course.grace_epochs,
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
