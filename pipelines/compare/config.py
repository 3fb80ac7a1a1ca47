"""Options of `pmlm compare`."""

from dataclasses import dataclass, field
from typing import ClassVar

from pipelines.ranges import check_numbers
from pipelines.run_place import check_address
from pmlm_core.addresses import is_remote
from pmlm_core.errors import ConfigError

KINDS = ("configuration", "model", "objective", "sweep", "strategy")
"""What `group_by` may be besides the name of an option of `pmlm finetune`."""


@dataclass(frozen=True)
class CompareConfig:
    """Compare fine-tuning runs and the trials of sweeps; left alone, everything that MLflow has of them."""

    positional: ClassVar[str] = "benchmark"
    dry_run: ClassVar[bool] = False

    benchmark: list[str] = field(default_factory=list)
    """Benchmarks, as rte mrpc: the runs of the experiments pmlm-BENCHMARK; with other choices, only these of them."""
    sweep: list[str] = field(default_factory=list)
    """Only the trials of these sweeps."""
    experiment: list[str] = field(default_factory=list)
    """MLflow experiments, as pmlm-finetune."""
    runs: list[str] = field(default_factory=list)
    """Runs by their MLflow ids; the id of a sweep stands for all its trials."""
    folders: list[str] = field(default_factory=list)
    """Read run folders and everything below them in place of MLflow: outputs/finetune, s3://bucket/sweeps/NAME."""
    group_by: str = "configuration"
    """What is compared: configuration (same options, several seeds), model, objective, sweep, strategy, or an option
    such as learning_rate. Of several configurations in a group, the best one stands for it."""
    metric: str | None = None
    """The figure to compare by; left out, the one that the benchmark's epochs and trials are chosen by."""
    split: str | None = None
    """The split it is of; left out, the labelled development split."""
    tested: int = 50
    """How many groups, from the best down, are tested against the best; the others are listed only."""
    resamples: int = 10_000
    """Resamples of the bootstrap, and of the permutation test; that takes more where it could tell nothing of so many
    groups."""
    seed: int = 0
    """Of the resamples."""
    output_dir: str = "outputs/compare"
    """Folder for index.html, comparison.json and comparison.csv; what is there is replaced."""
    tracking_uri: str | None = None
    """MLflow store; left out, MLFLOW_TRACKING_URI or sqlite:///mlflow.db."""

    def validate(self) -> None:
        """Refuse what is out of range or contradicts itself; nothing is read."""
        from pipelines.tracking.store import NONE

        check_numbers(self, ["tested", "seed"], least=0)
        check_numbers(self, ["resamples"], least=100, hint=": fewer say nothing")
        if not self.group_by:
            raise ConfigError(f"group_by must be one of {', '.join(KINDS)}, or an option of pmlm finetune")
        for folder in filter(is_remote, self.folders):
            check_address("folders", folder)
        if self.folders and (self.runs or self.experiment):
            raise ConfigError("folders are read in place of MLflow: leave out --runs and --experiment, or --folders")
        if self.tracking_uri == NONE and not self.folders:
            raise ConfigError("without MLflow, name the folders of the runs: pmlm compare --folders outputs/finetune")
        if "://" in self.output_dir:
            raise ConfigError(f"output_dir {self.output_dir} must be a folder of this machine")
