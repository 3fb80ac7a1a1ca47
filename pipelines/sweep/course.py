"""One benchmark's part of a sweep, settled: the job that all trials share, what is searched, how much of it.

SWEEP/BENCHMARK/          a run of its own in MLflow: the parent of its trials
    run.json              what it is; other options, data or checkpoint are refused
    result.json           what came of it
    tune/                 Ray Tune's state
    trials/TRIAL/         one folder a trial, laid out like a seed of `pmlm finetune`
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipelines.console import about, warn
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import Job, settle
from pipelines.finetune.splits import Rejects
from pipelines.run_folder import RunDir
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.schedule import Schedule
from pmlm_core import storage
from pmlm_core.errors import ConfigError, near
from tune_spaces.base import Benchmark
from tune_spaces.registry import ends, get_benchmark, settle_grid, settle_space

RESULT, TRIALS, TUNE = "result.json", "trials", "tune"
_LEARNS_SHARE = 4
"""Of a search that learns, one in so many trials is at work at a time."""

# What a sweep itself sets, or what has no meaning for one of its trials.
_OURS = frozenset(
    {
        *(
            "task",
            "model",
            "data_dir",
            "output_dir",
            "upload_dir",
            "run_name",
            "cache_dir",
            "seed",
            "seeds",
            "num_workers",
        ),
        *("cpus_per_worker", "use_gpu", "max_failures", "tracking_uri", "experiment_name", "metric_for_best_model"),
    }
)
OPTIONS = tuple(field.name for field in fields(FinetuneConfig) if field.name not in _OURS)
"""Options of `pmlm finetune` that all trials of a sweep may be given."""


@dataclass(frozen=True)
class Course:
    """What one benchmark's sweep is.

    Attributes:
        job: settled, with the run's folder for `run`; a trial puts its own options and folder in.
        searched: domains of `ray.tune`, or lists of values for a grid, by option.
        seeds: of finalists or grid; the first is the search's.
        num_samples: trials of the search.
        finalists: how many configurations are trained with every seed.
    """

    config: SweepConfig
    benchmark: Benchmark
    job: Job
    searched: Mapping[str, Any]
    seeds: tuple[int, ...]
    num_samples: int
    finalists: int
    grace_epochs: int

    @property
    def run(self) -> RunDir:
        return self.job.run

    @property
    def trials(self) -> Path:
        return self.run.path / TRIALS

    @property
    def metric(self) -> str:
        return self.benchmark.metric

    @property
    def max_epochs(self) -> int:
        """The most epochs that a trial can have."""
        return int(max(self._possible("num_train_epochs")))

    @property
    def schedule(self) -> Schedule:
        """The time by which its trials are compared."""
        shortest, warmup = min(self._possible("num_train_epochs")), max(self._possible("warmup_ratio"))
        return Schedule.of(int(shortest), self.grace_epochs, float(warmup))

    def _possible(self, option: str) -> list[Any]:
        """The least and the most, or all values, that an option of the recipe can have."""
        recipe = getattr(self.job.recipe, option)
        return _values(self.searched.get(option, recipe)) or [recipe]  # a function of the user's own has no ends

    @property
    def at_a_time(self) -> int | None:
        """Trials at a time, None for as many as fit: TPE learns nothing before trials end, so it proposes few."""
        if self.config.max_concurrent_trials is None and self.config.strategy in ("optuna", "optuna_pareto"):
            return max(1, self.num_samples // _LEARNS_SHARE)
        return self.config.max_concurrent_trials

    @property
    def searched_with(self) -> tuple[int, ...]:
        """Seeds of the search: a grid has them all."""
        return self.seeds if self.config.strategy == "paper_grid" else self.seeds[:1]

    def identity(self) -> dict[str, Any]:
        """What decides the result."""
        names = {name: in_plain(domain) for name, domain in self.searched.items()}
        mine = {
            **{name: value for name, value in self.config.deciding().items() if name not in ("space", "grid")},
            **{"searched": names, "seeds": list(self.seeds), "num_samples": self.num_samples},
            **{"finalists": self.finalists, "grace_epochs": self.grace_epochs},
        }
        base = self.job.identity()
        options = {f"finetune.{name}": value for name, value in base["options"].items()}
        return json.loads(json.dumps({**base, "options": {**mine, **options}}))


def courses(config: SweepConfig) -> tuple[list[Course], list[Rejects]]:
    """Settle every benchmark: spaces, options, checkpoint and files are looked at; nothing is written.

    Raises:
        ConfigError: something contradicts itself, the checkpoint or the files.
        DataError: files are missing or unusable.
    """
    found = [_course(config, name) for name in config.benchmark]
    names = [course.benchmark.name for course, _ in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"two of the benchmarks have the same name: {', '.join(names)}")
    sweep = Path(storage.absolute(config.output_dir)) / (config.run_name or _name([course for course, _ in found]))
    placed = [
        replace(course, job=replace(course.job, run=RunDir(sweep / course.benchmark.name))) for course, _ in found
    ]
    return placed, [rejects for _, rejects in found]


def _course(config: SweepConfig, name: str) -> tuple[Course, Rejects]:
    benchmark = get_benchmark(name, OPTIONS)
    if benchmark.mode != "max":
        raise ConfigError(
            f"benchmark '{benchmark.name}': mode is '{benchmark.mode}', but every figure is better higher"
        )
    for option in config.options or {}:
        if option not in OPTIONS:
            hint = "the sweep sets it itself" if option in _OURS else f"unknown{near(option, OPTIONS)}"
            raise ConfigError(f"options: '{option}' cannot be given to all trials: {hint}")
    grid = config.strategy == "paper_grid"
    searched: dict[str, Any] = settle_grid(benchmark, config.grid) if grid else settle_space(benchmark, config.space)
    asked, overrides = config.options or {}, config.space or config.grid or {}
    if twice := [option for option in asked if overrides.get(option) is not None]:
        raise ConfigError(f"'{twice[0]}' is in the search and in options; keep one of them")
    # What the user says of an option goes before what the benchmark's file says, be it fixed or searched.
    searched = {option: value for option, value in searched.items() if option not in asked}
    if config.strategy == "pbt" and (epochs := _values(searched.get("num_train_epochs", []))):
        # Members take over each other's state in the middle of a schedule: that must be the same for all.
        searched["num_train_epochs"] = int(max(epochs))
    options = {**{name: value for name, value in benchmark.options.items() if name not in searched}, **asked}
    base = trial_options(config, benchmark, options, config.folder_of(name))
    for option, domain in searched.items():
        for value in _values(domain):
            _with(base, {option: value}).validate()
    with about(benchmark.name):
        job, rejects = settle(base)
    if job.choose is None:
        raise ConfigError(
            f"benchmark '{benchmark.name}': {base.data_dir} has no labelled split besides the one trained on, so "
            "there is nothing to choose by"
        )
    seeds = config.all_seeds(benchmark.seeds)
    if config.strategy == "pbt" and not [name for name in benchmark.mutable if name in searched]:
        raise ConfigError(
            f"pbt: none of the options that may change within a trial ({', '.join(benchmark.mutable)}) is searched"
        )
    return Course(
        config,
        benchmark,
        job,
        searched,
        seeds,
        _grid_size(searched, seeds) if grid else config.num_samples or benchmark.budget.num_samples,
        _finalists(config, benchmark),
        config.grace_epochs or benchmark.budget.grace_epochs,
    ), rejects


def _values(searched: Any) -> list[Any]:
    """Values at which an option is tried before anything starts: a grid's own, or a domain's ends."""
    return searched if isinstance(searched, list) else ends(searched)


def _finalists(config: SweepConfig, benchmark: Benchmark) -> int:
    if config.strategy in ("paper_grid", "pbt"):
        if config.finalists:
            warn(f"finalists has no meaning for {config.strategy}: it is not used")
        return 1 if config.strategy == "paper_grid" else 0
    return benchmark.budget.finalists if config.finalists is None else config.finalists


def _grid_size(grid: Mapping[str, Any], seeds: tuple[int, ...]) -> int:
    size = len(seeds)
    for values in grid.values():
        size *= len(values)
    return size


def trial_options(
    config: SweepConfig, benchmark: Benchmark, options: Mapping[str, Any], data_dir: str
) -> FinetuneConfig:
    """What every trial of a benchmark is given, with `options` of the benchmark and of the user.

    Raises:
        ConfigError: they are out of range or contradict each other.
    """
    output_dir = storage.absolute(config.output_dir)
    base = FinetuneConfig(
        task=benchmark.task,
        model=config.model,
        data_dir=data_dir,
        output_dir=output_dir,
        cache_dir=config.cache_dir,
        num_workers=config.num_workers,
        cpus_per_worker=config.cpus_per_trial,
        use_gpu=config.gpus_per_trial > 0,
        tracking_uri="none",
        experiment_name=config.experiment_prefix + benchmark.name,
        metric_for_best_model=benchmark.metric,
    )
    base = _with(base, options)
    base.validate()
    return base


def _with(base: FinetuneConfig, options: Mapping[str, Any]) -> FinetuneConfig:
    """The configuration with options given as a recipe would: checked and converted like those of `pmlm finetune`."""
    from pipelines.options import converted

    return replace(base, **converted("sweep, options", FinetuneConfig, options))


def in_plain(domain: Any) -> Any:
    """A domain in words that are the same in every process: "log-uniform 1e-05 to 0.001", "one of 16, 32"."""
    if isinstance(domain, list | int | float | str | None):
        return domain
    if hasattr(domain, "categories"):
        return f"one of {', '.join(map(str, domain.categories))}"
    if not hasattr(domain, "lower"):
        return _function_in_plain(domain.func)
    sampler, form = domain.sampler, "log-uniform"
    steps = f" in steps of {sampler.q:g}" if hasattr(sampler, "q") else ""
    sampler = getattr(sampler, "sampler", sampler)  # of one with steps
    if hasattr(sampler, "sd"):
        return f"normal, mean {sampler.mean:g} and deviation {sampler.sd:g}{steps}"
    if "Log" not in type(sampler).__name__:
        form = "uniform"
    return f"{form} {domain.lower:g} to {domain.upper:g}{steps}"


def _function_in_plain(function: Any) -> str:
    """Its name, and a digest of its text: its own words hold an address, another in every process."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        return f"function {name}"
    return f"function {name} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _name(all_courses: list[Course]) -> str:
    identity = [course.identity() for course in all_courses]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    names = "-".join(course.benchmark.name for course in all_courses)
    if len(names) > 40:
        names = f"{len(all_courses)}-benchmarks"
    return f"{names}-{all_courses[0].config.strategy}-{digest}"
