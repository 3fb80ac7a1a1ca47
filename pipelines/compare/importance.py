"""How much of the spread between configurations each searched option explains, by Optuna over a study rebuilt here."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.compare.groups import Configuration, configurations_of
from pipelines.compare.sections import Section

_FEWEST = 6


@dataclass(frozen=True)
class Importance:
    """Shares that add up to 1, largest first; without them the reason why there are none."""

    shares: tuple[tuple[str, float], ...]
    configurations: int
    reason: str = ""
    evaluator: str = "fANOVA (Hutter et al. 2014), by Optuna"


def importance_of(section: Section) -> Importance:
    """Of the options that the section's finished configurations differ in; a configuration counts with its mean."""
    every = configurations_of(section, section.trials)
    finished = [each for each in every if each.outcome == "finished" and each.mean is not None]
    differing = [name for name in section.searched if len({repr(_value(each, name)) for each in finished}) > 1]
    if len(finished) < _FEWEST:
        are = f"{'is' if len(finished) == 1 else 'are'} {len(finished)}"
        return Importance((), len(finished), f"it takes {_FEWEST} finished configurations, and there {are}")
    if not differing:
        return Importance((), len(finished), "the finished configurations differ in no option")
    if len({each.mean for each in finished}) == 1:
        return Importance((), len(finished), "all finished configurations score the same")
    import optuna

    distributions = {name: _distribution([_value(each, name) for each in finished]) for name in differing}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental features
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="minimize" if section.mode == "min" else "maximize")
        for each in finished:
            values = {name: _known(distributions[name], _value(each, name)) for name in differing}
            study.add_trial(optuna.trial.create_trial(params=values, distributions=distributions, value=each.mean))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return Importance(tuple((name, float(share)) for name, share in ordered), len(finished))


def _value(configuration: Configuration, name: str) -> Any:
    return configuration.trials[0].options.get(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not all(_is_number(value) for value in values):
        return CategoricalDistribution(sorted({str(value) for value in values}))
    low, high = float(min(values)), float(max(values))
    return FloatDistribution(low, high, log=low > 0 and high / low >= 10)


def _known(distribution: Any, value: Any) -> Any:
    return str(value) if hasattr(distribution, "choices") else float(value)
