"""Files of a finished run, as artifacts of its MLflow run; a store that is away gets them by `pmlm sync`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.console import warn as console_warn
from pipelines.tracking.patience import Attempt
from pipelines.tracking.record import Record
from pipelines.tracking.store import NONE, resolve, set_client_defaults
from pmlm_core.inside import leads_outside


def log_artifacts(
    run_dir: str | os.PathLike[str],
    files: Sequence[str],
    tracking_uri: str | None,
    *,
    timeout: float = 120.0,
    warn: Callable[[str], None] = console_warn,
) -> bool:
    """Send files of a finished run; whether they arrived. Never raises for a store that is away.

    Call it on the driver, after the run's sink has finished.

    Args:
        files: relative to `run_dir`; their folders become folders of artifacts.

    Raises:
        ConfigError: `tracking_uri` is no MLflow store.
    """
    uri, record = resolve(tracking_uri), Record.load(run_dir)
    if uri == NONE or record is None:
        return False
    record.pending_artifacts = list(files)
    record.save(run_dir)
    return send_pending(run_dir, uri, timeout=timeout, warn=warn)


def send_pending(
    run_dir: str | os.PathLike[str],
    uri: str,
    *,
    timeout: float = 120.0,
    warn: Callable[[str], None] = console_warn,
) -> bool:
    """Send the files that the run's record still asks for; see `log_artifacts`."""
    record = Record.load(run_dir)
    if record is None or not record.pending_artifacts:
        return True
    wanted, run_id = record.pending_artifacts, record.run_id

    def work() -> None:
        if not run_id:
            raise RuntimeError("the run itself has not reached MLflow yet")
        set_client_defaults()
        from mlflow import MlflowClient

        if (outside := leads_outside(wanted)) is not None:  # the record of a run that somebody else made
            raise RuntimeError(f"{run_dir} asks for a file {outside!r}, which is none of this run")
        client = MlflowClient(tracking_uri=uri)
        for name in wanted:
            folder = os.path.dirname(name)
            client.log_artifact(run_id, str(Path(run_dir) / name), folder or None)

    failure = Attempt(work, timeout, "mlflow-artifacts").failure
    if failure is not None:
        warn(
            f"predictions and scores are not in MLflow yet ({failure}); the files are in {run_dir}. "
            f"To send them later: pmlm sync --run_dir {run_dir}"
        )
        return False
    record.pending_artifacts, record.sent_artifacts = [], wanted
    record.save(run_dir)
    return True
