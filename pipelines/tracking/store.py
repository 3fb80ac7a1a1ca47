"""Where the runs are kept: one address, made absolute, and the store and experiment made once, by the driver.

Several processes that open a fresh SQLite store at the same moment trip over its tables: only `prepare` creates one.
"""

import logging
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.console import warn
from pipelines.tracking.redact import redact
from pmlm_core.errors import ConfigError

NONE = "none"
_DEFAULT = "sqlite:///mlflow.db"
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_SQLITE = "sqlite:///"


def resolve(tracking_uri: str | None) -> str:
    """The address to use: the one given, else MLFLOW_TRACKING_URI, else a SQLite file in the working directory.

    A relative SQLite path becomes absolute, since workers run elsewhere. "none" switches tracking off.

    Raises:
        ConfigError: MLflow has no such kind of store.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _DEFAULT
    if uri == NONE or uri == "databricks":
        return uri
    scheme = uri.partition("://")[0].partition("+")[0]
    if "://" not in uri or scheme not in _SCHEMES:
        raise ConfigError(
            f"tracking_uri '{redact(uri)}' is no MLflow store; use sqlite:///FILE.db, http(s)://HOST:PORT of an mlflow "
            f"server, a database address, or 'none' to keep figures in the run's folder only"
        )
    if uri.startswith(_SQLITE):
        return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).absolute())
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite address, None for any other."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def set_client_defaults() -> None:
    """Short time limits for MLflow's HTTP client, unless the user set others: our own loop repeats, with patience."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Said about MLflow's own classes when it is imported.
    warnings.filterwarnings("ignore", message=".*Add type hints to the", category=UserWarning)
    for name in ("mlflow.store.db.utils", "alembic", "mlflow.pyfunc"):  # a screenful about tables and validation
        logging.getLogger(name).setLevel(logging.WARNING)


def ensure_experiment(client: Any, uri: str, name: str) -> str:
    """Return the id of experiment `name`, making it where it is missing."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    database = sqlite_file(uri)
    # Beside the database: MLflow's own default is a folder in whatever directory the process runs in.
    location = (database.parent / "mlruns" / name.replace("/", "_")).as_uri() if database else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except Exception:  # another process was quicker
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def prepare(
    tracking_uri: str | None, experiment: str, *, timeout: float | None = None, warn: Callable[[str], None] = warn
) -> str:
    """Make store and experiment ready, on the driver, and return the absolute address for the workers.

    A server that does not answer within `timeout` seconds (15; a SQLite file gets 120, its first tables take a while)
    is no error: the figures wait in the journal.

    Raises:
        ConfigError: the address is no MLflow store.
    """
    uri = resolve(tracking_uri)
    if uri == NONE:
        return uri
    failure: list[str] = []

    def make() -> None:
        try:
            set_client_defaults()
            database = sqlite_file(uri)
            if database:
                database.parent.mkdir(parents=True, exist_ok=True)
            from mlflow import MlflowClient

            ensure_experiment(MlflowClient(tracking_uri=uri), uri, experiment)
        except Exception as error:
            failure.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    thread = threading.Thread(target=make, name="mlflow-prepare", daemon=True)
    thread.start()
    limit = timeout if timeout is not None else (120.0 if sqlite_file(uri) else 15.0)
    thread.join(limit)
    if thread.is_alive():
        failure.append(f"no answer within {limit:.0f} s")
    if failure:
        warn(f"MLflow at {redact(uri)} is away ({redact(failure[0])}); the run goes on and its figures are sent later")
    return uri
