"""Options of `pmlm sweep`."""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from pipelines.finetune.config import DATA, MODEL, seeds_in
from pipelines.ranges import check_numbers
from pipelines.run_place import check_run_place
from pipelines.there import check_folder
from pmlm_core.addresses import is_remote
from pmlm_core.errors import ConfigError
from tune_spaces.registry import check_named

Strategy = Literal["paper_grid", "random", "optuna", "optuna_pareto", "asha", "hyperband", "pbt"]

_OPERATIONAL = frozenset(
    {
        *(
            "benchmark",
            "data_dir",
            "model",
            "output_dir",
            "upload_dir",
            "run_name",
            "cache_dir",
            "max_concurrent_trials",
        ),
        *("cpus_per_trial", "gpus_per_trial", "num_workers", "max_failures", "retry_failed"),
        *("register_model", "tracking_uri", "experiment_prefix"),
    }
)
"""Options that do not name a sweep: where its data and model lie (their contents do), where it runs, what it shows."""


KEEPING_STATES = ("hyperband", "pbt")
"""Strategies for which Tune keeps states of trials, in a folder that all nodes must see."""


@dataclass(frozen=True)
class SweepConfig:
    """Everything `pmlm sweep` can be told. The same command again goes on where the sweep stopped."""

    positional: ClassVar[str] = "benchmark"

    benchmark: list[str]
    """Benchmarks to sweep, which share the cluster (cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, squad1.1,
    squad2.0, cnn_dailymail, xsum, squad_qg, squad_qg_reversed, scitldr), or .py files like tune_spaces/template.py."""
    model: str
    """Checkpoint folder of pre-training that every trial starts from; at s3:// or gs:// too (fetched once a node)."""
    data_dir: list[str]
    """Folder of the files: one for all benchmarks, or BENCHMARK=FOLDER for each that has its own."""
    output_dir: str = "outputs/sweep"
    """Folder for sweeps, each in one of its own; or s3://, gs://, where they are copied as they are worked on here."""
    upload_dir: str | None = None
    """s3://, gs:// or folder to copy trials and results to; where output_dir was lost, the sweep goes on from it."""
    run_name: str | None = None
    """Folder of this sweep below output_dir; left out, a name is derived from what decides the result."""
    cache_dir: str | None = None
    """Folder for encoded examples, found again by content; left out, output_dir/features."""

    strategy: Strategy = "random"
    """paper_grid: the paper's whole grid with every seed. random: random search. optuna: TPE. optuna_pareto: score
    against seconds. asha, hyperband: hopeless trials are stopped early. pbt: a population that copies its best, all of
    it with the most epochs of the space."""
    num_samples: int | None = None
    """Trials of the search (for pbt the size of the population); left out, the benchmark's. A grid has its own size."""
    space: dict[str, Any] | None = None
    """Other domains than the benchmark's: {"learning_rate": {"loguniform": [1e-4, 1e-3]}, "batch_size": [16, 32]}; null
    leaves an option out of the search."""
    grid: dict[str, Any] | None = None
    """Other values than the paper's in paper_grid: {"learning_rate": [1e-4, 3e-4]}; null leaves an option out."""
    options: dict[str, Any] | None = None
    """Options of pmlm finetune that every trial has: {"max_length": 128, "num_train_epochs": 5}."""
    finalists: int | None = None
    """The best so many configurations are trained with every seed and chosen by their mean; left out, the benchmark's
    budget; 0 takes the best single trial. A grid has every seed already; pbt has no finalists."""
    seeds: str | None = None
    """Seeds of finalists and grid, as 1,2,3,4,5; a search uses the first. Left out, the benchmark's."""
    grace_epochs: int | None = None
    """asha, hyperband, pbt, and the median of stop_hopeless: epochs of the shortest trial before one may be stopped, of
    longer ones the same share, and never while any warms up; left out, the benchmark's."""
    stop_hopeless: bool = True
    """random and optuna: stop a trial whose best so far is below the median of the others at the same share of their
    epochs."""
    seed: int = 0
    """Of the search itself."""

    max_concurrent_trials: int | None = None
    """Trials at a time for each benchmark; left out, as many as fit, also on nodes that join or leave meanwhile; of
    optuna and optuna_pareto, which learn from what has ended, a quarter of num_samples."""
    cpus_per_trial: int = 1
    """CPU threads of a trial; with several workers, of each worker."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial: 0.25 puts four on one GPU (its memory is not divided: see that they fit); with several workers,
    of each worker."""
    num_workers: int = 1
    """Workers of each trial: one trains inside the trial, several by Ray Train."""
    max_failures: int = 1
    """How often a trial that failed (a lost machine, memory) is tried again, from its last checkpoint."""
    retry_failed: bool = False
    """On going on with a sweep: try its failed trials again."""

    register_model: str | None = None
    """Name of the winner's model in MLflow; left out, EXPERIMENT_PREFIX + benchmark; "none" registers nothing."""
    tracking_uri: str | None = None
    """MLflow store; left out, MLFLOW_TRACKING_URI or sqlite:///mlflow.db; "none" switches tracking off."""
    experiment_prefix: str = "pmlm-"
    """MLflow experiments are named so, with the benchmark's name behind it."""

    def validate(self) -> None:
        """Refuse what is out of range or contradicts itself; spaces and options are checked benchmark by benchmark.

        Raises:
            ConfigError: it is.
        """
        if not self.benchmark:
            raise ConfigError("name a benchmark: pmlm sweep --benchmark rte")
        if len(set(self.benchmark)) < len(self.benchmark):
            raise ConfigError(f"a benchmark is named twice: {', '.join(self.benchmark)}")
        counts = ("num_samples", "grace_epochs", "max_concurrent_trials", "cpus_per_trial", "num_workers")
        check_numbers(self, counts, least=1)
        check_numbers(self, ["finalists"], least=0)
        check_numbers(self, ["gpus_per_trial"], least=0, hint=": none, a share of one GPU, or 1")
        check_numbers(self, ["max_failures"], least=-1, hint=" (-1: no limit)")
        if self.num_workers == 1 and self.gpus_per_trial > 1:
            workers = math.ceil(self.gpus_per_trial)
            raise ConfigError(
                f"gpus_per_trial {self.gpus_per_trial:g}: a worker trains on one GPU, and the others would idle; give "
                f"--num_workers {workers} --gpus_per_trial 1"
            )
        if self.num_workers > 1 and self.gpus_per_trial not in (0.0, 1.0):
            raise ConfigError("with several workers a trial has one GPU for each: give gpus_per_trial 1, or 0 for CPUs")
        if self.strategy == "paper_grid" and (self.space or self.num_samples):
            raise ConfigError(
                "paper_grid takes its values from the grid: give --grid in place of space and num_samples"
            )
        if self.strategy != "paper_grid" and self.grid:
            raise ConfigError(f"grid is for the strategy paper_grid; {self.strategy} searches a space: give --space")
        if self.strategy == "pbt" and self.num_workers > 1:
            raise ConfigError("pbt copies checkpoints between trials of one worker each; leave num_workers at 1")
        if self.strategy == "hyperband" and self.num_workers > 1:
            raise ConfigError(
                "hyperband pauses trials, and the workers of a paused one would keep their CPUs; take asha, or leave "
                "num_workers at 1"
            )
        if self.strategy == "pbt" and (self.num_samples or 2) < 2:
            raise ConfigError("pbt needs a population: num_samples of 2 or more")
        check_run_place(self.output_dir, self.run_name, self.upload_dir)
        if self.strategy == "pbt" and (self.upload_dir is not None or is_remote(self.output_dir)):
            raise ConfigError(
                "pbt's population is kept by Tune in pickled files, which are not uploaded, for what lies in a store "
                "is not to run code: give a folder for output_dir and no upload_dir, or take another strategy"
            )
        if len(self.benchmark) > 1 and self.register_model not in (None, "none"):
            raise ConfigError(
                "register_model names one model, and each of several benchmarks has its own winner: leave it out, "
                "and they are named EXPERIMENT_PREFIX + benchmark"
            )
        if self.tracking_uri == "none" and self.register_model not in (None, "none"):
            raise ConfigError(
                f"register_model {self.register_model} is for MLflow, which tracking_uri none switches off: leave out "
                "one of them"
            )
        self.all_seeds(())
        for each in self.data_dir:
            benchmark, equals, _ = each.partition("=")
            if equals and benchmark not in self.benchmark:
                raise ConfigError(
                    f"data_dir {each}: '{benchmark}' is none of the benchmarks as they were given: "
                    f"{', '.join(self.benchmark)}"
                )

    def check_there(self) -> None:
        """Refuse benchmarks, data or a model that are not there.

        Raises:
            NotThereError, ConfigError: which, and what there is.
        """
        for name in self.benchmark:
            check_named(name)
            check_folder("data_dir", self.folder_of(name), DATA)
        check_folder("model", self.model, MODEL)

    def all_seeds(self, default: tuple[int, ...]) -> tuple[int, ...]:
        """The seeds asked for, or the default.

        Raises:
            ConfigError: they are no list of numbers, or one is there twice.
        """
        if self.seeds is None:
            return default
        return tuple(seeds_in(self.seeds))

    def folder_of(self, benchmark: str) -> str:
        """The data folder of a benchmark.

        Raises:
            ConfigError: none was given for it, or several.
        """
        named = dict(each.split("=", 1) for each in self.data_dir if "=" in each)
        common = [each for each in self.data_dir if "=" not in each]
        if benchmark in named:
            return named[benchmark]
        if len(common) != 1:
            raise ConfigError(f"data_dir: give one folder for all benchmarks, or {benchmark}=FOLDER")
        return common[0]

    def deciding(self) -> dict[str, Any]:
        """The options that decide what is searched."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OPERATIONAL}
