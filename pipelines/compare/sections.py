"""What may be compared with what: runs of one benchmark on the same examples, with the figure it is judged by."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.compare.comparable import by_yardstick
from pipelines.compare.config import CompareConfig
from pipelines.compare.runs import SWEEP, Curve, Outcome, Run, Source, parsed
from pipelines.finetune.config import FinetuneConfig
from pmlm_core.errors import ConfigError
from pmlm_core.tasks.files import SPLIT_NAMES
from pmlm_core.tasks.registry import OPTIONS, TASKS, get_task

OPTION_NAMES = tuple(FinetuneConfig(task="", model="", data_dir="").deciding())
"""Options of `pmlm finetune` that decide the result, the seed aside."""

_OWN_METRICS = {"classification": "accuracy", "regression": "pearson", "qa": "f1", "seq2seq": "rougeLsum"}
_USUAL = {"text_column": "text", "label_column": "label", "can_be_unanswerable": False}
# Learning curves are fetched for so many trials, from the best down, and for those that have no other score.
_DRAWN = 120
_NO_CURVE: Curve = ()


@dataclass(frozen=True)
class Trial:
    """A run with its score.

    Attributes:
        score: the section's figure: of the finished model, else of the best epoch so far; None without one.
        options: every option that decides the result, by name.
        curve: (epoch, score on the development split), by epoch.
    """

    run: Run
    score: float | None
    options: Mapping[str, Any]
    curve: Curve = ()

    @property
    def outcome(self) -> Outcome:
        return self.run.outcome


@dataclass(frozen=True)
class Section:
    """One benchmark's part of the comparison.

    Attributes:
        metric: the figure that is compared.
        split: the split it is of.
        mode: "max" where more is better, else "min".
        searched: options that differ between the trials, those that a sweep searched first.
        sweeps: the sweeps as a whole.
    """

    name: str
    task: str
    metric: str
    split: str
    mode: str
    trials: tuple[Trial, ...]
    searched: tuple[str, ...]
    sweeps: tuple[Run, ...] = ()

    @property
    def sign(self) -> int:
        """Times this, more is better."""
        return -1 if self.mode == "min" else 1

    @property
    def baseline(self) -> float | None:
        """The trivial baseline's score by the section's figure."""
        return self.baseline_of(self.split, self.metric)

    def baseline_of(self, split: str, figure: str) -> float | None:
        """The trivial baseline's score, of most of the runs; None where none was held against it."""
        name = f"baseline/{split}/{figure}"
        found = [trial.run.metrics[name] for trial in self.trials if name in trial.run.metrics]
        return max(found, key=found.count, default=None)

    def figure_of(self, run: Run) -> float | None:
        return run.metrics.get(f"final/{self.split}/{self.metric}")


def sections_of(runs: Sequence[Run], source: Source, config: CompareConfig) -> list[Section]:
    """Sort runs into sections, by the names of their benchmarks; those that cannot be compared have sections apart.

    Raises:
        ConfigError: none is of the benchmarks that were asked for, or none has the figure that was asked for.
    """
    by_name: dict[str, list[Run]] = {}
    ordered = sorted(runs, key=lambda run: (run.name, run.id))  # the same wherever they were read from
    for run, name in _named([run for run in ordered if run.stage != SWEEP]):
        by_name.setdefault(name, []).append(run)
    wanted = {name: found for name, found in by_name.items() if not config.benchmark or name in config.benchmark}
    if not wanted:
        raise ConfigError(
            f"none of the {len(runs)} runs is of benchmark {', '.join(config.benchmark)}; "
            f"they are of {', '.join(sorted(by_name)) or 'none: sweeps whose trials have not begun'}"
        )
    sweeps = [run for run in ordered if run.stage == SWEEP]
    sections = [
        _section(f"{name}, {apart}" if apart else name, part, sweeps, source, config)
        for name, found in sorted(wanted.items())
        for apart, part in by_yardstick(found, *_figure(found, _task(found, name), config))
    ]
    if config.metric is not None and not any(trial.score is not None for s in sections for trial in s.trials):
        figures = sorted({name for found in wanted.values() for run in found for name in run.metrics if "/" in name})
        shown = ", ".join(name for name in figures if name.startswith(("final/", "eval/")))
        raise ConfigError(f"no run has the figure '{config.metric}'; figures are {shown or 'none'}")
    return sections


def _named(runs: Iterable[Run]) -> list[tuple[Run, str]]:
    """Each run with its section: the benchmark of its sweep, or of a sweep on the same examples, or its task.

    Data of one's own share a task without being comparable: their folder tells them apart.
    """
    runs = list(runs)
    tagged = {_data(run): run.tags["benchmark"] for run in runs if "benchmark" in run.tags}
    return [(run, run.tags.get("benchmark") or tagged.get(_data(run)) or _own_name(run)) for run in runs]


def _data(run: Run) -> tuple[str, ...]:
    """Task and development examples."""
    task = run.tags.get("task", "")
    return task, *(
        value for name, value in sorted(run.tags.items()) if name.startswith("data.") and "train" not in name
    )


def _own_name(run: Run) -> str:
    task = run.tags.get("task", "unknown")
    folder = Path(run.params.get("data_dir", "")).name
    return f"{task}-{folder}" if task in OPTIONS and folder else task


def _section(name: str, runs: list[Run], sweeps: list[Run], source: Source, config: CompareConfig) -> Section:
    task = _task(runs, name)
    (metric, split), dev = _figure(runs, task, config), _dev_split(runs, task)
    mode = next((run.tags["mode"] for run in runs if run.tags.get("mode") in ("min", "max")), "max")
    own = {run.parent for run in runs} - {None}
    section = Section(name, task, metric, split, mode, (), (), tuple(s for s in sweeps if s.id in own))
    trials = _trials(section, runs, source, is_dev=section.split == dev)
    return replace(section, trials=trials, searched=_searched(section, trials))


def _task(runs: Sequence[Run], name: str) -> str:
    return next((run.tags["task"] for run in runs if "task" in run.tags), name)


def _figure(runs: Sequence[Run], task: str, config: CompareConfig) -> tuple[str, str]:
    """The figure that is compared, and the split it is of."""
    return config.metric or _metric(runs, task), config.split or _dev_split(runs, task)


def _metric(runs: Sequence[Run], task: str) -> str:
    told = [run.tags["metric"] for run in runs if "metric" in run.tags]
    if told:
        return max(told, key=told.count)
    if task in TASKS and task not in OPTIONS:
        return get_task(task).metric
    return _OWN_METRICS.get(task, "accuracy")


def _dev_split(runs: Sequence[Run], task: str) -> str:
    """The labelled development split of the task; of data of one's own, the one whose figures are there."""
    if task in TASKS and task not in OPTIONS:
        return get_task(task).dev_split or "dev"
    scored = {name.split("/")[1] for run in runs for name in run.metrics if name.startswith("final/")}
    named = [split for split in SPLIT_NAMES["dev"] if split in scored]
    return next(iter(named or sorted(scored)), "dev")


def _trials(section: Section, runs: Sequence[Run], source: Source, *, is_dev: bool) -> tuple[Trial, ...]:
    """Runs with their scores; `is_dev`: the section's split is the one that is scored after every epoch."""
    finals = {run.id: section.figure_of(run) for run in runs}
    best = sorted(
        (run for run in runs if finals[run.id] is not None), key=lambda r: -section.sign * (finals[r.id] or 0)
    )
    drawn = {run.id for run in best[:_DRAWN]}
    usual = _metric(runs, section.task)
    trials = []
    for run in runs:
        score, curve = finals[run.id], _NO_CURVE
        if is_dev and (score is None or run.id in drawn):
            curve = source.history(run, section.metric)
            run = replace(run, history={section.metric: curve})
        if score is None and curve:
            score = section.sign * max(section.sign * value for _, value in curve)
        options = {name: parsed(run.params[name]) for name in OPTION_NAMES if name in run.params}
        # Leaving them out and naming what they are then are the same.
        options |= {name: value for name, value in _USUAL.items() if options.get(name) is None and name in options}
        options["metric_for_best_model"] = options.get("metric_for_best_model") or run.tags.get("metric") or usual
        trials.append(Trial(run, score, options, curve))
    return tuple(trials)


def _searched(section: Section, trials: Sequence[Trial]) -> tuple[str, ...]:
    asked: list[str] = []
    for run in (*section.sweeps, *(trial.run for trial in trials)):
        try:
            asked += json.loads(run.tags.get("searched", "[]"))
        except ValueError:
            continue
    differing = [name for name in OPTION_NAMES if len({repr(trial.options.get(name)) for trial in trials}) > 1]
    return tuple(sorted(differing, key=lambda name: asked.index(name) if name in asked else len(asked)))
