"""Options of `pmlm sync`."""

from dataclasses import dataclass
from typing import ClassVar

from pipelines.ranges import check_numbers
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class SyncConfig:
    """Send what MLflow has not received yet of a run, or of all runs of a sweep."""

    dry_run: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("run_dir",)

    run_dir: str = ""
    """Folder of the run, the one with metrics.jsonl and mlflow.json in it; or a folder of many, such as a sweep's."""
    tracking_uri: str | None = None
    """Address of the store; MLFLOW_TRACKING_URI by default, else the one the run was started with."""
    all: bool = False
    """Also figures of steps after the newest checkpoint of a run that has not finished: only if nobody goes on with it,
    for its command does these steps again, and MLflow would keep the values of now."""
    timeout: float = 600.0
    """Seconds to try for, with each run."""

    def validate(self) -> None:
        """Raises ConfigError where options cannot be followed; nothing is read from disk."""
        if not self.run_dir:
            raise ConfigError("pmlm sync needs --run_dir, the folder of the run whose figures are to be sent")
        check_numbers(self, ["timeout"], above=0)
