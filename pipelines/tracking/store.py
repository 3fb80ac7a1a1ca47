"""Where the runs are kept: one address, made absolute, and the store and its experiment made where they are missing."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.tracking.redact import redact
from pmlm_core.errors import ConfigError, PmlmError

NONE = "none"
_DEFAULT = "sqlite:///mlflow.db"
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_SQLITE = "sqlite:///"


class Deleted(PmlmError):
    """What is to be sent was deleted in MLflow: for whoever did that to undo, so it is not tried again."""


def resolve(tracking_uri: str | None) -> str:
    """Settle the address to use: the one given, else MLFLOW_TRACKING_URI, else a SQLite file in the working directory.

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


def is_off(tracking_uri: str | None) -> bool:
    """Whether nothing is tracked: the option says "none", or, left out, MLFLOW_TRACKING_URI does."""
    return resolve(tracking_uri) == NONE


def check_registers(register_model: str | None, tracking_uri: str | None) -> None:
    """Look that there is somewhere to register a model, if one is asked for.

    Not a configuration's `validate`, which knows nothing of the environment that another machine runs the command in.

    Raises:
        ConfigError: MLflow is switched off.
    """
    if register_model not in (None, NONE) and is_off(tracking_uri):
        raise ConfigError(
            f"register_model {register_model} is for MLflow, and MLFLOW_TRACKING_URI=none in the environment switches "
            "that off: give --tracking_uri, unset the variable, or leave register_model out (--register_model null "
            "where a recipe gives it)"
        )


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite address, None for any other.

    >>> sqlite_file("sqlite:////data/mlflow.db?timeout=60")
    PosixPath('/data/mlflow.db')
    """
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def set_client_defaults() -> None:
    """Short time limits for MLflow's HTTP client, and no lines of its own beside ours, unless the user set others: our
    own loop repeats, with patience."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    level = (os.environ.get("MLFLOW_LOGGING_LEVEL") or "WARNING").upper()
    if level not in logging.getLevelNamesMapping():  # MLflow would end with a traceback
        level = "INFO"
    os.environ["MLFLOW_LOGGING_LEVEL"] = level  # which it reads when it is imported
    # Said about MLflow's own classes when it is imported.
    warnings.filterwarnings("ignore", message=".*Add type hints to the", category=UserWarning)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(level)


def open_store(uri: str, experiment: str) -> tuple[Any, str]:
    """Connect to a store, making it and the experiment where they are missing: (client, id of the experiment).

    One process at a time for a SQLite file: of several that open a fresh one at the same moment, most would fail.

    Raises:
        Deleted: the experiment was.
    """
    set_client_defaults()
    from mlflow import MlflowClient

    with _alone_with(sqlite_file(uri)):
        _make(sqlite_file(uri))
        client = MlflowClient(tracking_uri=uri)
        return client, _ensure_experiment(client, uri, experiment)


def _make(database: Path | None) -> None:
    """Make a SQLite file that is not there: under its name only when it is whole, for half of one, which a kill would
    leave, MLflow can neither use nor complete."""
    if database is None or database.exists():
        return
    from mlflow import MlflowClient

    draft = database.with_name(f".{database.name}.making")
    draft.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"{_SQLITE}{draft}").search_experiments(max_results=1)
    draft.rename(database)


def _ensure_experiment(client: Any, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return _id_of(found)
    database = sqlite_file(uri)
    # Beside the database: MLflow's own default is a folder in whatever directory the process runs in.
    location = (database.parent / "mlruns" / name.replace("/", "_")).as_uri() if database else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except Exception:  # another process was quicker
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return _id_of(found)


def is_deleted(entity: Any) -> bool:
    """Whether a run's `info`, or an experiment, was deleted in MLflow, which still tells of it."""
    return bool(entity.lifecycle_stage == "deleted")


def _id_of(experiment: Any) -> str:
    if is_deleted(experiment):
        raise Deleted(
            f"experiment {experiment.name} was deleted in MLflow; to have it back, with its runs: mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


@contextmanager
def _alone_with(database: Path | None) -> Iterator[None]:
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass  # no such locks here (Windows, some network file systems): as without them
        yield
