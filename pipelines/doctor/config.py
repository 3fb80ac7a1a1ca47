"""Options of `pmlm doctor`."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from pipelines.ranges import check_numbers
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class DoctorConfig:
    """What to look at: pmlm doctor -- pretrain --config RECIPE.yaml --output_dir /shared/pretrain"""

    positional: ClassVar[str] = "command"
    dry_run: ClassVar[bool] = False

    command: list[str] = field(default_factory=list)
    """A command to check for, after `--` and as it would be given: its paths, workers and memory."""
    recipe: str | None = None
    """Recipe to check for: the paths, workers and memory of all its sections."""
    paths: list[str] = field(default_factory=list)
    """Folders and addresses (s3://, gs://) that every node has to see and to write to."""
    tracking_uri: str | None = None
    """MLflow store; left out, that of the command or recipe, MLFLOW_TRACKING_URI or sqlite:///mlflow.db."""

    cluster: bool | None = None
    """Look at the nodes of a Ray (joined or started), not at this machine alone; left out, if RAY_ADDRESS is set."""
    verify_blocks: bool = False
    """Read all blocks on this machine's disks that are named, and compare their digests: takes as long as reading."""
    timeout: float = 30.0
    """Seconds that a question to a node, a storage or a server may take."""
    json: str | None = None
    """File to write all checks, findings and nodes' reports to, for machines."""
    strict: bool = False
    """Let warnings, too, end the command with exit code 1."""

    def validate(self) -> None:
        """Raises ConfigError where options cannot be followed."""
        check_numbers(self, ["timeout"], above=0)
        if not all(path.strip() for path in self.paths):
            raise ConfigError("paths holds an empty name; name folders or addresses")
        if self.command and self.recipe is not None:
            raise ConfigError("give a recipe or a command (with its --config), not both")

    def through_ray(self) -> bool:
        """Whether the nodes of a Ray are looked at, rather than this machine without one."""
        return bool(os.environ.get("RAY_ADDRESS")) if self.cluster is None else self.cluster
