"""What a job is told beside its command: where runs are tracked, which code this is, and never a secret.

Whoever may look at the cluster's dashboard sees a job's command, environment and metadata.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pmlm_core
from pipelines.console import warn
from pipelines.leaving import GRACE_S
from pipelines.tracking.code_version import COMMIT_VARIABLE, code_version
from pipelines.tracking.redact import redact
from pipelines.tracking.store import NONE, sqlite_file
from pmlm_core import __version__
from pmlm_core.errors import ConfigError

TRACKING = "MLFLOW_TRACKING_URI"
TRACKING_METADATA = "tracking_uri"
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
_ON_THE_NODES = (
    "set it on the nodes, in the environment that Ray is started with (`export` before `ray start` in cluster.yaml, a "
    "secret on Kubernetes)"
)


def refuse_secrets(words: Sequence[str], recipes: Iterable[Path]) -> None:
    """Refuse a command or recipes that hold a password or token.

    Raises:
        ConfigError: they do; the message does not repeat it.
    """
    if any(redact(word) != word for word in words):
        raise ConfigError(
            f"the command holds a password or token ({redact(' '.join(words))}), and everyone who sees the cluster's "
            f"dashboard would see it; leave it out and {_ON_THE_NODES}"
        )
    for recipe in recipes:
        for number, line in enumerate(recipe.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if redact(line) != line:
                raise ConfigError(
                    f"recipe {recipe}, line {number}, holds a password or token ({redact(line).strip()}), and it is "
                    f"sent to the cluster; leave it out and {_ON_THE_NODES}"
                )


def environment(root: Path, config: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Environment variables and metadata of the job; says what of this process's own is not handed on.

    Args:
        root: the folder that is sent.
        config: what the command runs with.
    """
    # Between SIGTERM and SIGKILL Ray gives 3 s, in which no checkpoint is written.
    variables = {STOP_WAIT: os.environ.get(STOP_WAIT) or f"{GRACE_S + 60:.0f}"}
    uri = os.environ.get(TRACKING)
    tracks = hasattr(config, "tracking_uri") and config.tracking_uri is None
    if uri and redact(uri) != uri:
        warn(f"{TRACKING} holds a password or token and is not handed to the job: {_ON_THE_NODES}")
    elif uri and (file := sqlite_file(uri)) and not file.is_absolute():
        warn(f"{TRACKING} {uri} is a file of this folder and is not handed to the job: {_ON_THE_NODES}")
    elif uri:
        variables[TRACKING] = uri
    elif tracks:
        warn(
            f"{TRACKING} is not set here: unless the nodes have it, MLflow's database lies in a folder that Ray "
            "removes after the job. The figures stay in the run's own folder, from where they go to a store by "
            "`pmlm sync --run_dir RUN --tracking_uri STORE`"
        )
    if root == Path(pmlm_core.__file__).resolve().parent.parent and (commit := code_version().get("commit")):
        variables[COMMIT_VARIABLE] = commit  # the code is sent without its history
    metadata = {"pmlm": __version__}
    if (settled := getattr(config, "tracking_uri", None) or variables.get(TRACKING)) and settled != NONE:
        metadata[TRACKING_METADATA] = settled
    return variables, metadata
