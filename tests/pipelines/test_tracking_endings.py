"""How runs end in MLflow: unfinished ones, which go on later, and those that were deleted there."""

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracking_data import write_steps

from pipelines.sync.config import SyncConfig
from pipelines.sync.run import run as sync
from pipelines.tracking import store
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink
from pmlm_core.errors import PmlmError
from pmlm_core.training.checkpoint import folder_of
from tests.pipelines.test_tracking import history, run_of


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    store.open_store(uri, "pmlm")
    return uri


def losses(uri: str, run_dir: Path) -> list[tuple[int, float]]:
    return history(uri, run_of(uri, run_dir).info.run_id, "train/loss")


def in_journal(run_dir: Path) -> list[tuple[int, float]]:
    return [(entry.step, entry.metrics["train/loss"]) for entry in Journal(run_dir).entries()]


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_of_a_run_that_goes_on_later_no_figure_is_sent_that_it_computes_again(
    tmp_path: Path, sqlite_uri: str, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path)
    for step in (10, 20):  # that of 20 is one of the command before, which was killed
        folder_of(tmp_path / "checkpoints", step).mkdir(parents=True)
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "unfinished")
    write_steps(journal, range(1, 31))
    sink.ship(10)
    assert sink.finish(status, 60)
    assert run_of(sqlite_uri, tmp_path).info.status == status
    assert [step for step, _ in losses(sqlite_uri, tmp_path)] == list(range(1, 21))
    said = " ".join(capsys.readouterr().out.split())
    assert "figures after step 20 are not sent to MLflow" in said
    assert "pmlm sync --run_dir" in said
    journal.truncate_after(20)
    for step in range(21, 41):  # on other workers
        journal.append(step, {"train/loss": 7.0 + step})
    assert MlflowSink(tmp_path, sqlite_uri, "pmlm", "unfinished").finish("FINISHED", 60)
    assert losses(sqlite_uri, tmp_path) == in_journal(tmp_path)
    assert "are not sent" not in capsys.readouterr().out


def test_a_run_that_failed_before_its_first_checkpoint_and_is_given_up_is_sent_by_sync(
    tmp_path: Path, sqlite_uri: str
) -> None:
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "given up")
    write_steps(Journal(tmp_path), range(1, 6))
    assert sink.flush(60)
    assert sink.finish("FAILED", 60)
    assert run_of(sqlite_uri, tmp_path).info.status == "FAILED"
    assert losses(sqlite_uri, tmp_path) == []
    sync(SyncConfig(str(tmp_path), sqlite_uri))
    assert losses(sqlite_uri, tmp_path) == []
    sync(SyncConfig(str(tmp_path), sqlite_uri, all=True))
    assert losses(sqlite_uri, tmp_path) == in_journal(tmp_path) != []
    assert run_of(sqlite_uri, tmp_path).info.status == "FAILED"


def test_sync_of_a_killed_run_leaves_to_the_command_that_goes_on_what_it_computes_again(
    tmp_path: Path, sqlite_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed by the system, it has no other status than RUNNING; the sweep it is part of does no step again."""
    run_dir = tmp_path / "trials" / "killed"
    tags = {"stage": "sweep"}
    for folder, name in ((tmp_path, "sweep"), (run_dir, "killed")):
        parent = {"parent": "../.."} if folder == run_dir else {"tags": tags}
        Record(sqlite_uri, "pmlm", name, **parent).save(folder)  # type: ignore[arg-type]
        write_steps(Journal(folder), range(1, 31))
    folder_of(run_dir / "checkpoints", 20).mkdir(parents=True)
    sync(SyncConfig(str(tmp_path), sqlite_uri))
    said = " ".join(capsys.readouterr().out.split())
    assert "after step 20 of run killed were held back" in said
    assert f"pmlm sync --run_dir {tmp_path} --all" in said
    assert losses(sqlite_uri, run_dir) == in_journal(run_dir)[:20]
    assert losses(sqlite_uri, tmp_path) == in_journal(tmp_path)
    journal = Journal(run_dir)
    journal.truncate_after(20)
    for step in range(21, 41):
        journal.append(step, {"train/loss": 7.0 + step})
    assert MlflowSink(run_dir, sqlite_uri, "pmlm", "killed").finish("FINISHED", 60)
    assert losses(sqlite_uri, run_dir) == in_journal(run_dir)
    sync(SyncConfig(str(tmp_path), sqlite_uri))
    assert "held back" not in capsys.readouterr().out


def test_of_a_trial_that_failed_everything_is_sent_and_of_one_that_goes_on_what_is_safe(
    tmp_path: Path, sqlite_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MlflowSink(tmp_path, sqlite_uri, "pmlm", "sweep").finish("FINISHED", 60)
    for status, safe in (("FAILED", 5), ("KILLED", 2)):
        trial = tmp_path / status
        sink = MlflowSink(trial, sqlite_uri, "pmlm", status, parent=tmp_path)
        write_steps(Journal(trial), range(1, 6))
        sink.ship(2)
        assert sink.finish(status, 60)
        assert losses(sqlite_uri, trial) == in_journal(trial)[:safe]
    assert "pmlm sync" not in capsys.readouterr().out


@pytest.mark.parametrize("deleted", ["run", "experiment"])
def test_what_was_deleted_in_mlflow_is_said_with_the_way_back_and_not_tried_again(
    tmp_path: Path, sqlite_uri: str, deleted: str
) -> None:
    client, warnings = MlflowClient(tracking_uri=sqlite_uri), list[str]()
    sink = MlflowSink(tmp_path, sqlite_uri, f"deleted {deleted}", "r", warn=warnings.append)
    journal = Journal(tmp_path)
    write_steps(journal, range(1, 6))
    sink.ship(5)
    assert sink.flush(60)
    run = run_of(sqlite_uri, tmp_path)
    if deleted == "run":
        client.delete_run(run.info.run_id)
        way = f"mlflow runs restore --run-id {run.info.run_id}"
    else:
        client.delete_experiment(run.info.experiment_id)
        way = f"mlflow experiments restore --experiment-id {run.info.experiment_id}"
    write_steps(journal, range(6, 11))
    sink.ship(10)
    sink.flush(10)
    begun = time.monotonic()
    assert not sink.finish("FINISHED", 60)
    assert time.monotonic() - begun < 20
    assert [way in text for text in warnings] == [True, True], warnings  # at once, and at the end
    record = Record.load(tmp_path)
    assert record is not None
    assert not record.delivered
    begun = time.monotonic()
    with pytest.raises(PmlmError, match=way):
        sync(SyncConfig(str(tmp_path), sqlite_uri))
    assert time.monotonic() - begun < 20
    assert run_of(sqlite_uri, tmp_path).info.lifecycle_stage == "deleted"  # nobody's deletion is undone
    if deleted == "run":
        client.restore_run(run.info.run_id)
    else:
        client.restore_experiment(run.info.experiment_id)
    sync(SyncConfig(str(tmp_path), sqlite_uri))
    assert losses(sqlite_uri, tmp_path) == in_journal(tmp_path)
    assert run_of(sqlite_uri, tmp_path).info.status == "FINISHED"
