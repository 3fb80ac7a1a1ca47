"""MLflow's SQLite file: made whole or not at all, whoever kills whom."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.tracking import store

OPEN = "import sys; from pipelines.tracking import store; store.open_store(sys.argv[1], 'pmlm')"


def test_an_address_with_settings_makes_and_opens_the_same_file(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=60"
    _, experiment = store.open_store(uri, "pmlm")
    assert store.open_store(uri, "pmlm")[1] == experiment
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


@pytest.mark.parametrize(("given", "level"), [(None, 30), ("", 30), ("error", 40), ("LOUD", 20)])
def test_any_level_of_mlflows_log_is_taken(given: str | None, level: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_LOGGING_LEVEL"}
    code = (
        "from pipelines.tracking.store import set_client_defaults; set_client_defaults(); import mlflow, logging; "
        "print(logging.getLogger('mlflow').level)"
    )
    command, given_too = [sys.executable, "-c", code], {} if given is None else {"MLFLOW_LOGGING_LEVEL": given}
    done = subprocess.run(command, env=environment | given_too, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, [str(level)]), done.stderr


def test_a_kill_while_the_tables_are_made_is_no_obstacle(tmp_path: Path) -> None:
    """Half of them MLflow can neither use nor complete."""
    database, draft = tmp_path / "mlflow.db", tmp_path / ".mlflow.db.making"
    uri = f"sqlite:///{database}"
    process = subprocess.Popen([sys.executable, "-c", OPEN, uri])
    while process.poll() is None and not (draft.exists() and draft.stat().st_size):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not database.exists()
    assert draft.stat().st_size
    client, experiment = store.open_store(uri, "pmlm")
    assert client.get_experiment(experiment).name == "pmlm"
    assert not draft.exists()
    assert MlflowClient(tracking_uri=uri).create_run(experiment).info.run_id
    again, same = store.open_store(uri, "pmlm")
    assert same == experiment
    assert len(again.search_runs([experiment])) == 1
