"""Whether the MLflow store can be reached from here and used; passwords stay out of every text."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.doctor.finding import Check, Finding, error, warning
from pipelines.doctor.secrets import cleaned
from pipelines.doctor.unresolved import remedy
from pipelines.tracking.patience import Attempt
from pipelines.tracking.redact import redact
from pipelines.tracking.store import NONE, resolve, set_client_defaults, sqlite_file


@dataclass(frozen=True)
class Store:
    """What a look at the store found. `address` can be shown; `state`: "off", "new", "there" or "failed"."""

    address: str
    state: str
    file: bool = False
    by_default: bool = False
    failure: str = ""


def look(tracking_uri: str | None, timeout: float) -> Store:
    """Read from the store, without making one.

    Raises:
        ConfigError: MLflow has no such kind of store.
    """
    uri = resolve(tracking_uri)
    if uri == NONE:
        return Store(uri, "off")
    shown, file = redact(uri), sqlite_file(uri)
    by_default = not tracking_uri and not os.environ.get("MLFLOW_TRACKING_URI")
    if file is not None and not file.exists():
        state, failure = ("new", "") if _can_be_made(file) else ("failed", f"{file} may not be made there")
        return Store(shown, state, True, by_default, failure)
    if file is not None and not os.access(file, os.W_OK):
        return Store(shown, "failed", True, by_default, f"{file} may not be written to")
    attempt = Attempt(lambda: _first_experiment(uri), timeout, "doctor-mlflow")
    if attempt.failure is None:
        return Store(shown, "there", file is not None, by_default)
    return Store(shown, "failed", file is not None, by_default, cleaned(attempt.failure, uri))


def _way_out(failure: str) -> str:
    if "schema" in failure:
        return "Upgrade it by `mlflow db upgrade` with the store's address."
    if "Invalid Host header" in failure:
        return "Start it with the name and port by which it is asked here (HOST:PORT) among its `--allowed-hosts`."
    return remedy(
        failure,
        "Start the server, or mend the address or the credentials (figures would wait in the run's folder for "
        "`pmlm sync`).",
    )


def check(store: Store, *, several: bool) -> Check:
    """Findings about the store; `several`: work runs on more than this machine."""
    findings: list[Finding] = []
    if store.state == "failed":
        findings.append(error(f"{store.address} cannot be used: {store.failure}", _way_out(store.failure)))
    if store.file and several and store.by_default:
        findings.append(
            warning(
                f"{store.address} is a file in the working directory of this command, which for `ray job submit` is a "
                "temporary one",
                "Set MLFLOW_TRACKING_URI to an MLflow server, or to sqlite:////shared/... in the shared folder.",
            )
        )
    states = {"off": "switched off", "new": "will be made at", "there": "answers at", "failed": "fails at"}
    summary = states[store.state] + ("" if store.state == "off" else f" {store.address}")
    return Check("MLflow", summary, tuple(findings))


def _first_experiment(uri: str) -> Any:
    set_client_defaults()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def _can_be_made(file: Path) -> bool:
    above = next((folder for folder in file.parents if folder.exists()), file.parent)
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
