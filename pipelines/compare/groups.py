"""Runs into configurations, which differ by more than the seed; configurations into the groups that are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from statistics import mean, median, stdev
from typing import Any

from pipelines.compare.config import KINDS
from pipelines.compare.names import shown, spoken
from pipelines.compare.runs import FINETUNE, Outcome, Run
from pipelines.compare.sections import OPTION_NAMES, Section, Trial
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class Configuration:
    """Runs with the same options but the seed, from the same checkpoint.

    Attributes:
        trials: all its runs.
        scored: those that its figures are of: of every seed one run, finished; if none finished, those with a score.
        confirmed: it has several seeds, or no sweep it is of trained another configuration with several.
    """

    trials: tuple[Trial, ...]
    scored: tuple[Trial, ...]
    outcome: Outcome
    confirmed: bool = True

    @property
    def scores(self) -> list[float]:
        return [trial.score for trial in self.scored if trial.score is not None]

    @property
    def mean(self) -> float | None:
        return mean(self.scores) if self.scores else None

    @property
    def stdev(self) -> float | None:
        """Standard deviation of a sample; None for one seed."""
        return stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class Group:
    """What is compared.

    Attributes:
        best: the configuration that stands for it.
        configurations: all, best first.
    """

    label: str
    best: Configuration
    configurations: tuple[Configuration, ...]

    @property
    def trials(self) -> list[Trial]:
        return [trial for configuration in self.configurations for trial in configuration.trials]

    @property
    def median(self) -> float | None:
        """Over the seeds of a configuration; of a group of several, over their means."""
        if len(self.configurations) == 1:
            return median(self.best.scores) if self.best.scores else None
        means = [each.mean for each in self.configurations if each.outcome == "finished" and each.mean is not None]
        return median(means) if means else None

    @property
    def seconds(self) -> float | None:
        """Mean time of a run of the best configuration."""
        times = [trial.run.seconds for trial in self.best.scored or self.best.trials if trial.run.seconds is not None]
        return mean(times) if times else None


def groups_of(section: Section, group_by: str) -> list[Group]:
    """Groups, best first; those without a finished run after all others.

    Raises:
        ConfigError: there is no such way to group.
    """
    if group_by not in (*KINDS, *OPTION_NAMES):
        raise ConfigError(
            f"group_by '{group_by}' is neither one of {', '.join(KINDS)} nor an option of pmlm finetune that decides "
            "the result, as learning_rate or batch_size"
        )
    by_key: dict[str, list[Configuration]] = {}
    if group_by == "configuration":
        by_key = {str(number): [each] for number, each in enumerate(configurations_of(section, section.trials))}
    else:
        # First by group: two sweeps may have tried the same configuration.
        trials: dict[str, list[Trial]] = {}
        for trial in section.trials:
            trials.setdefault(_key(trial, group_by), []).append(trial)
        by_key = {key: configurations_of(section, found) for key, found in trials.items()}
    groups = []
    for key, found in by_key.items():
        ordered = sorted(found, key=lambda each: _rank(each, section.sign))
        label = _configuration_label(section, ordered[0]) if group_by == "configuration" else _label(key, group_by)
        groups.append(Group(label, ordered[0], tuple(ordered)))
    groups.sort(key=lambda group: _rank(group.best, section.sign))
    return _distinct(groups)


def configurations_of(section: Section, trials: Sequence[Trial]) -> list[Configuration]:
    """Configurations of these trials of a section, in the order of their first runs."""
    by_key: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        by_key.setdefault(_configuration_key(trial), []).append(trial)
    found = [_configuration(trials) for trials in by_key.values()]
    repeating = {sweep for each in found if len(each.scored) > 1 for sweep in _sweeps(each)} - {None}
    return [replace(each, confirmed=len(each.scored) > 1 or not _sweeps(each) <= repeating) for each in found]


def _sweeps(configuration: Configuration) -> set[str | None]:
    return {trial.run.tags.get("sweep") for trial in configuration.trials}


def _configuration(trials: Sequence[Trial]) -> Configuration:
    outcome: Outcome = next(
        (o for o in ("finished", "running", "stopped") if any(trial.outcome == o for trial in trials)), "failed"
    )  # type: ignore[assignment]
    of_seed: dict[str, Trial] = {}
    # The search's run of a finalist and the finalist's with the same seed are one measurement, not two.
    for trial in sorted(trials, key=lambda each: (each.run.is_finalist, each.run.start or 0.0)):
        if trial.outcome == outcome and trial.score is not None and outcome != "failed":
            of_seed[trial.run.seed] = trial
    seeds = sorted(of_seed, key=lambda seed: (len(seed), seed))
    return Configuration(tuple(trials), tuple(of_seed[seed] for seed in seeds), outcome)


def _configuration_key(trial: Trial) -> tuple[Any, ...]:
    run = trial.run
    # In the middle of a trial population-based training changes what its parameters said at the start.
    lineage = run.tags.get("configuration", run.id) if run.tags.get("strategy") == "pbt" and not run.is_finalist else ""
    train = tuple(value for name, value in sorted(run.tags.items()) if name.startswith("data."))
    return (lineage, _model(run), train, *(repr(trial.options.get(name)) for name in OPTION_NAMES))


def _rank(configuration: Configuration, sign: int) -> tuple[Any, ...]:
    """Sorts finished and confirmed ones first, then by score; of equal ones those with more seeds, then the cheaper."""
    score = configuration.mean
    unscored = score is None
    return (
        configuration.outcome != "finished" or unscored,
        not configuration.confirmed,
        0.0 if score is None else -sign * score,
        -len(configuration.scored),
        sum(trial.run.seconds or 0.0 for trial in configuration.scored) / max(1, len(configuration.scored)),
    )


def _model(run: Run) -> str:
    start = run.tags.get("pretrained.sha256") or run.tags.get("pretrained.path") or run.params.get("model", "")
    return f"{start} fresh" if run.params.get("from_scratch") == "True" else start


def model_label(run: Run) -> str:
    """A checkpoint's name: the last parts of its path that say something."""
    path = (
        run.tags.get("pretrained.path") or run.params.get("model") or run.tags.get("pretrained.sha256", "unknown")[:8]
    )
    parts = [part for part in PurePath(path).parts if part not in ("/", "pretrain", "outputs", "checkpoints", "final")]
    name = "/".join(parts[-2:]) or path
    return f"{name}, fresh weights" if run.params.get("from_scratch") == "True" else name


def _key(trial: Trial, group_by: str) -> str:
    run = trial.run
    match group_by:
        case "model":
            return _model(run) + "\0" + model_label(run)
        case "objective":
            return run.tags.get("pretrained.objective", "not recorded")
        case "sweep":
            return run.tags.get("sweep") or ("pmlm finetune" if run.stage == FINETUNE else "not recorded")
        case "strategy":
            return run.tags.get("strategy") or ("pmlm finetune" if run.stage == FINETUNE else "not recorded")
    return shown(trial.options.get(group_by))


def _label(key: str, group_by: str) -> str:
    key = key.rpartition("\0")[2]
    return key if group_by in KINDS else f"{spoken(group_by)} {key}"


def _configuration_label(section: Section, configuration: Configuration) -> str:
    """The searched options, and the checkpoint where there are several."""
    first = configuration.trials[0]
    parts = [f"{spoken(name)} {shown(first.options.get(name))}" for name in section.searched if name != "from_scratch"]
    if len({_model(trial.run) for trial in section.trials}) > 1:
        parts.insert(0, model_label(first.run))
    return ", ".join(parts) or model_label(first.run)


def _distinct(groups: Sequence[Group]) -> list[Group]:
    """Number those whose labels are the same."""
    labels = [group.label for group in groups]
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.label] = seen.get(group.label, 0) + 1
        more = f" ({seen[group.label]})" if labels.count(group.label) > 1 else ""
        named.append(Group(group.label + more, group.best, group.configurations))
    return named
