"""`pmlm sync`: send what a run's journal holds and MLflow has not received: figures, final status, files, the model."""

import os
import time

from pipelines.console import say, warn
from pipelines.lock import locked
from pipelines.sync.config import SyncConfig
from pipelines.tracking import artifacts, models
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.record import Record
from pipelines.tracking.redact import redact
from pipelines.tracking.sink import EVERYTHING
from pipelines.tracking.store import resolve
from pmlm_core.errors import DataError, PmlmError


def run(config: SyncConfig) -> None:
    """Send what is left.

    Raises:
        DataError: the run's record is damaged.
        PmlmError: the store did not take everything within `timeout` seconds.
        ConfigError: the run is being trained, which sends its figures by itself.
    """
    with locked(config.run_dir, "pmlm sync"):
        _send(config)


def _send(config: SyncConfig) -> None:
    record = Record.load(config.run_dir)
    if record is None:
        raise DataError(f"{config.run_dir} holds no mlflow.json")
    uri = _address(config, record)
    deadline, pause, complaint = time.monotonic() + config.timeout, 1.0, ""
    delivery = Delivery(config.run_dir, uri, record)
    while True:
        try:
            sent = delivery.deliver(EVERYTHING)
            record.delivered = True
            record.save(config.run_dir)
            break
        except Exception as error:
            complaint = f"{type(error).__name__}: {redact(' '.join(str(error).split()))[:300]}"
            delivery.forget_connection()
        if time.monotonic() + pause > deadline:
            raise PmlmError(
                f"MLflow at {redact(uri)} did not take the run within {config.timeout:.0f} s ({complaint}); "
                f"nothing is lost, the same command goes on where it stopped"
            )
        time.sleep(pause)
        pause = min(15.0, pause * 2)
    say(
        f"sent {sent} figures of run {record.run_name} ({record.status}) to {redact(uri)}, "
        f"experiment {record.experiment}"
    )
    if record.pending_artifacts:
        artifacts.send_pending(config.run_dir, uri, warn=warn)
    if record.pending_model:
        models.register_pending(config.run_dir, uri, warn=warn)


def _address(config: SyncConfig, record: Record) -> str:
    """The option, then the environment (it may hold user and password), then what the run was started with."""
    given = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or record.tracking_uri
    uri = resolve(given)
    if "://***@" in uri:
        raise PmlmError(
            f"user and password of {uri} are not kept on disk; give the full address in MLFLOW_TRACKING_URI"
        )
    return uri
