"""Options of `pmlm submit`."""

from dataclasses import dataclass, field
from typing import ClassVar

from pipelines.ranges import check_numbers
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class SubmitConfig:
    """Run a command on a cluster: pmlm submit -- pretrain --config RECIPE.yaml --output_dir /shared/pretrain

    The code and recipes of the current folder are sent, its data is not; files that the command names are.
    """

    positional: ClassVar[str] = "command"

    command: list[str] = field(default_factory=list)
    """The command to run there, after `--` and as it would be given: pretrain --config RECIPE.yaml ..."""
    exclude: list[str] = field(default_factory=list)
    """What else of this folder is not to be sent, as patterns of .gitignore (.gitignore and .rayignore count too)."""
    entrypoint_resources: dict[str, float] | None = None
    """Where the command itself starts, as the resources of a node: '{"train_node": 1}'; left out, on the head."""
    no_wait: bool = False
    """Return when the job is accepted, or with --logs when all that there is was printed; nothing is followed."""
    retries: int = 0
    """Times it is submitted again where the command's process or node was lost; not after an error of its own."""

    status: str | None = None
    """In place of a command: id of a job to tell the state and the MLflow runs of."""
    logs: str | None = None
    """In place of a command: id of a job to print and follow the output of."""
    stop: str | None = None
    """In place of a command: id of a job to stop; what it has finished is kept."""
    list: bool = False
    """In place of a command: tell all jobs of the cluster."""

    address: str | None = None
    """The cluster's dashboard; left out, RAY_API_SERVER_ADDRESS, RAY_ADDRESS if http, or http://127.0.0.1:8265."""
    tracking_uri: str | None = None
    """MLflow store where --status looks; left out, the one that the job was given, or MLFLOW_TRACKING_URI."""

    def validate(self) -> None:
        """Raises ConfigError where options cannot be followed; nothing is sent."""
        told = {
            "a command after --": bool(self.command),
            "--status": self.status is not None,
            "--logs": self.logs is not None,
            "--stop": self.stop is not None,
            "--list": self.list,
        }
        asked = [name for name, given in told.items() if given]
        if not asked:
            raise ConfigError("pmlm submit needs a command after --: pmlm submit -- pretrain --config RECIPE.yaml ...")
        if len(asked) > 1:
            raise ConfigError(f"give one of {' and '.join(asked)}, not {len(asked)}")
        if "" in (self.status, self.logs, self.stop):
            raise ConfigError(f"{asked[0]} needs the id of a job; pmlm submit --list tells them")
        check_numbers(self, ["retries"], least=0)
        if self.retries and self.no_wait:
            raise ConfigError("with --no_wait nobody is there to submit again: leave out --retries or --no_wait")
        if self.address is not None and not self.address.startswith(("http://", "https://")):
            raise ConfigError(
                f"address '{self.address}' is not that of a dashboard: http://HOST:8265 (through `ray dashboard "
                "cluster.yaml` it is http://127.0.0.1:8265)"
            )
