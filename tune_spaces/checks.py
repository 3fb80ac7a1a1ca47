"""What can be wrong with a benchmark's file, told before anything is trained.

What the space draws is looked at in `settle`: making it takes `ray.tune`, and these checks are to be cheap.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from pmlm_core.errors import ConfigError, near
from tune_spaces.base import SEARCHABLE, Benchmark, Budget, Published


def check_benchmark(benchmark: Any, where: str, option_names: Collection[str] | None = None) -> Benchmark:
    """The benchmark itself, once it is known to be one.

    Args:
        where: its file, for messages.
        option_names: options of `pmlm finetune` that a benchmark may set; None leaves the names in `options` unchecked.

    Raises:
        ConfigError: what is wrong, in which field, and what may stand there.
    """
    if not isinstance(benchmark, Benchmark):
        raise ConfigError(
            f"{where}: BENCHMARK is {_kind(benchmark)}; it must be a Benchmark(...) of tune_spaces.base, "
            "as in tune_spaces/template.py"
        )
    if not isinstance(benchmark.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", benchmark.name, re.ASCII):
        raise ConfigError(
            f"{where}: name {benchmark.name!r} must be letters, digits, '.', '_' and '-' only: a folder and an MLflow "
            "experiment are called by it"
        )
    _check_forms(benchmark, where)
    _check_options(benchmark, where, option_names)
    known = figure_names(benchmark, where)
    if benchmark.metric not in known:
        raise ConfigError(
            f"{where}: metric '{benchmark.metric}' is no figure of task '{benchmark.task}'"
            f"{near(benchmark.metric, known) or ';'} it has {', '.join(known)}"
        )
    for option, values in benchmark.paper_grid.items():
        check_searchable(option, f"{where}: paper_grid")
        if not isinstance(values, tuple | list) or not values:
            raise ConfigError(
                f"{where}: paper_grid: {option} is {values!r}; write the values to try, for example "
                f'"{option}": (16, 32), and one value as (16,) with its comma'
            )
        if option in benchmark.options:
            raise ConfigError(f"{where}: {option} stands in options and in paper_grid; keep one of them")
    return benchmark


def check_searchable(option: str, where: str) -> None:
    """Refuse an option that cannot differ from trial to trial.

    Raises:
        ConfigError: with the name that was probably meant.
    """
    if option not in SEARCHABLE:
        raise ConfigError(
            f"{where}: '{option}' cannot be searched{near(option, SEARCHABLE) or ';'} options that can are "
            f"{', '.join(sorted(SEARCHABLE))}. What is the same for all trials, such as max_length, belongs in the "
            "benchmark's options"
        )


def figure_names(benchmark: Benchmark, where: str) -> list[str]:
    """Names of the figures that the benchmark's task is scored by.

    Raises:
        ConfigError: there is no such task, or the task refuses its options.
    """
    from pmlm_core.tasks.registry import OPTIONS, TASKS, get_task
    from pmlm_core.tasks.scoring import figures_of

    if benchmark.task not in TASKS:
        raise ConfigError(
            f"{where}: task '{benchmark.task}' is not known{near(benchmark.task, TASKS) or ';'} "
            f"tasks are {', '.join(TASKS)}"
        )
    options = {name: benchmark.options[name] for name in OPTIONS.get(benchmark.task, ()) if name in benchmark.options}
    variants = [options]
    if benchmark.task == "classification" and options.get("labels") is None:
        # The labels are read from the data later; which figures there are depends on whether they are 0 and 1.
        variants = [{**options, "labels": labels} for labels in (["0", "1"], ["a", "b"])]
    found: list[str] = []
    for variant in variants:
        found += figures_of(get_task(benchmark.task, **variant))
    return list(dict.fromkeys(found))


def _check_forms(benchmark: Benchmark, where: str) -> None:
    """Types and ranges of the fields that no task has a say in."""
    if not callable(benchmark.space):
        raise ConfigError(
            f"{where}: space is {_kind(benchmark.space)}; it must be a function without arguments that makes a "
            "dictionary, as in tune_spaces/template.py"
        )
    for field in ("paper_grid", "options"):
        if not isinstance(getattr(benchmark, field), Mapping):
            raise ConfigError(f"{where}: {field} is {_kind(getattr(benchmark, field))}; it must be a dictionary")
    if benchmark.mode not in ("max", "min"):
        raise ConfigError(f"{where}: mode is {benchmark.mode!r}; it must be 'max' or 'min'")
    seeds = benchmark.seeds
    if not isinstance(seeds, tuple | list) or not seeds or not all(_is_count(seed) for seed in seeds):
        raise ConfigError(f"{where}: seeds is {seeds!r}; write whole numbers from 0, for example (1, 2, 3)")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where}: seeds {seeds!r} has one of them twice")
    budget = benchmark.budget
    if not isinstance(budget, Budget):
        raise ConfigError(f"{where}: budget is {_kind(budget)}; write for example Budget(num_samples=16, finalists=2)")
    for part in ("num_samples", "finalists", "grace_epochs"):
        if not _is_count(getattr(budget, part)) or getattr(budget, part) < 1:
            raise ConfigError(f"{where}: budget: {part} is {getattr(budget, part)!r}; it must be 1 or more")
    if not isinstance(benchmark.mutable, tuple | list):
        raise ConfigError(f"{where}: mutable is {benchmark.mutable!r}; write a tuple, as ('learning_rate',)")
    for option in benchmark.mutable:
        check_searchable(option, f"{where}: mutable")
    published = benchmark.published
    if not isinstance(published, tuple | list) or not all(isinstance(each, Published) for each in published):
        raise ConfigError(
            f"{where}: published must be a tuple of Published(...), and one alone ends in a comma: "
            '(Published("Somebody et al.", {"accuracy": 90.1}),)'
        )


def _check_options(benchmark: Benchmark, where: str, option_names: Collection[str] | None) -> None:
    for option in benchmark.options:
        if option_names is not None and option not in option_names:
            raise ConfigError(
                f"{where}: options: a benchmark cannot set '{option}'{near(option, option_names) or ';'} "
                f"it can set {', '.join(sorted(option_names))}"
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.40}"
