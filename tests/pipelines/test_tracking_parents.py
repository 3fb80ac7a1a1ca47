"""Runs that are part of another, and tags that are known late, in a real MLflow store (SQLite) and without one."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.lock import locked
from pipelines.sync.config import SyncConfig
from pipelines.sync.run import run as sync
from pipelines.tracking import store
from pipelines.tracking.delivery import PARENT_TAG, Delivery, WaitsForParent
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink
from pmlm_core.errors import ConfigError, DataError

AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    store.open_store(uri, "pmlm-rte")
    return uri


def record_of(run_dir: Path) -> Record:
    record = Record.load(run_dir)
    assert record is not None
    return record


def run_of(uri: str, run_dir: Path) -> Any:
    return MlflowClient(tracking_uri=uri).get_run(str(record_of(run_dir).run_id))


def trial(sweep: Path, name: str) -> Path:
    folder = sweep / "trials" / name
    Journal(folder).append(1, {"eval/accuracy": 50.0})
    return folder


def test_a_child_waits_quietly_for_its_parent(tmp_path: Path, sqlite_uri: str) -> None:
    warnings: list[str] = []
    child = trial(tmp_path, "a")
    sink = MlflowSink(child, sqlite_uri, "pmlm-rte", "a", parent=tmp_path, warn=warnings.append)
    assert not sink.flush(1.0)
    assert record_of(child).run_id is None
    parent = MlflowSink(tmp_path, sqlite_uri, "pmlm-rte", "sweep")
    assert sink.finish("FINISHED", 60)
    assert parent.finish("FINISHED", 60)
    assert run_of(sqlite_uri, child).data.tags[PARENT_TAG] == record_of(tmp_path).run_id
    assert PARENT_TAG not in run_of(sqlite_uri, tmp_path).data.tags
    assert not warnings


def test_a_child_found_again_keeps_its_parent(tmp_path: Path, sqlite_uri: str) -> None:
    child = trial(tmp_path, "a")
    assert MlflowSink(tmp_path, sqlite_uri, "pmlm-rte", "sweep").finish("FINISHED", 60)
    assert MlflowSink(child, sqlite_uri, "pmlm-rte", "a").finish("FINISHED", 60)
    first = run_of(sqlite_uri, child)
    assert PARENT_TAG not in first.data.tags
    for parent in (tmp_path, None):  # named the second time only
        record = record_of(child)
        record.run_id = None  # and the answer to its creation was lost
        record.save(child)
        assert MlflowSink(child, sqlite_uri, "pmlm-rte", "a", parent=parent).finish("FINISHED", 60)
        again = run_of(sqlite_uri, child)
        assert again.info.run_id == first.info.run_id
        assert again.data.tags[PARENT_TAG] == record_of(tmp_path).run_id


def test_no_child_of_a_run_that_this_store_does_not_know(tmp_path: Path, sqlite_uri: str) -> None:
    Record(AWAY, "pmlm-rte", "sweep", run_id="0" * 32).save(tmp_path)
    record = Record(AWAY, "pmlm-rte", "a", parent="../..")
    with pytest.raises(WaitsForParent, match="not in this store yet"):
        Delivery(trial(tmp_path, "a"), sqlite_uri, record).deliver(1)
    assert record.run_id is None


def test_a_sweep_that_was_never_sent_is_sent_by_one_command(tmp_path: Path, sqlite_uri: str, capsys: Any) -> None:
    sweep = tmp_path / "night" / "rte"
    parent = MlflowSink(sweep, AWAY, "pmlm-rte", "night", warn=lambda _: None)
    for name in "ab":
        child = MlflowSink(trial(sweep, name), AWAY, "pmlm-rte", name, parent=sweep, warn=lambda _: None)
        child.tag("outcome", "finished")
        assert not child.finish("FINISHED", 0.1)
    parent.tag("winner", "b")
    parent.tag("winner_run_id", run=sweep / "trials" / "b")
    assert not parent.finish("FINISHED", 0.1)
    moved = tmp_path / "moved"
    (tmp_path / "night").rename(moved)
    config = SyncConfig(str(moved), sqlite_uri, timeout=60)
    config.validate()
    capsys.readouterr()
    sync(config)
    assert "sent 2 figures of 3 runs" in capsys.readouterr().out
    top = run_of(sqlite_uri, moved / "rte")
    children = [run_of(sqlite_uri, moved / "rte" / "trials" / name) for name in "ab"]
    assert [child.data.tags[PARENT_TAG] for child in children] == [top.info.run_id] * 2
    assert [child.data.tags["outcome"] for child in children] == ["finished"] * 2
    assert top.data.tags["winner"] == "b"
    assert top.data.tags["winner_run_id"] == children[1].info.run_id
    assert {run.info.status for run in (top, *children)} == {"FINISHED"}
    sync(config)
    assert "3 of the runs had arrived whole before" in capsys.readouterr().out


def test_a_child_sent_by_itself_takes_its_parent_along(tmp_path: Path, sqlite_uri: str) -> None:
    child = trial(tmp_path, "a")
    Record(AWAY, "pmlm-rte", "sweep").save(tmp_path)
    Record(AWAY, "pmlm-rte", "a", parent="../..").save(child)
    with locked(tmp_path, "pmlm sweep"), pytest.raises(ConfigError, match="in use by pmlm sweep"):
        sync(SyncConfig(str(child), sqlite_uri, timeout=60))
    sync(SyncConfig(str(child), sqlite_uri, timeout=60))
    assert run_of(sqlite_uri, child).data.tags[PARENT_TAG] == run_of(sqlite_uri, tmp_path).info.run_id


def test_a_parent_without_a_record_is_named(tmp_path: Path) -> None:
    child = trial(tmp_path, "a")
    Record(AWAY, "pmlm-rte", "a", parent="../..").save(child)
    with pytest.raises(DataError, match=f"{tmp_path} holds no mlflow.json"):
        sync(SyncConfig(str(child), AWAY))


def test_records_of_before_still_load(tmp_path: Path) -> None:
    old = {"tracking_uri": AWAY, "experiment": "pmlm", "run_name": "r", "run_key": "k", "shipped": {"a": 3}}
    (tmp_path / "mlflow.json").write_text(json.dumps(old))
    record = record_of(tmp_path)
    assert (record.shipped, record.parent, record.run_tags) == ({"a": 3}, None, {})
    assert record.parent_of(tmp_path) is None


# ---- tags that are known late ----


def test_late_tags_arrive_without_secrets(tmp_path: Path, sqlite_uri: str) -> None:
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm-rte", "late", tags={"outcome": "running"})
    assert sink.flush(60)
    sink.tag("outcome", "failed")
    assert sink.flush(60)  # not only at the end
    assert run_of(sqlite_uri, tmp_path).data.tags["outcome"] == "failed"
    sink.tag("failure", "DataError: s3://me:hush@bucket is away")
    sink.tag("api_key", "hush")
    assert "hush" not in (tmp_path / "mlflow.json").read_text()
    assert sink.finish("FAILED", 60)
    tags = run_of(sqlite_uri, tmp_path).data.tags
    assert tags["failure"] == "DataError: s3://***@bucket is away"
    assert tags["api_key"] == "***"


def test_late_tags_survive_the_process(tmp_path: Path, sqlite_uri: str) -> None:
    sink = MlflowSink(tmp_path, AWAY, "pmlm-rte", "late", tags={"commit": "a"}, warn=lambda _: None)
    sink.tag("outcome", "stopped")
    sink.finish("KILLED", 0.1)
    assert MlflowSink(tmp_path, sqlite_uri, "pmlm-rte", "late", tags={"commit": "b"}).finish("FINISHED", 60)
    tags = run_of(sqlite_uri, tmp_path).data.tags
    assert (tags["outcome"], tags["commit"]) == ("stopped", "b")


def test_a_sink_may_be_used_from_other_threads(tmp_path: Path, sqlite_uri: str) -> None:
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm-rte", "threads")
    journal = Journal(tmp_path)
    arrived = []

    def end() -> None:
        for number in range(50):
            sink.tag(f"tag{number}", str(number))
            journal.append(number, {"a": 1.0})
            sink.ship(number)
        arrived.append(sink.finish("FINISHED", 60))

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(120)
    assert arrived == [True]
    run = run_of(sqlite_uri, tmp_path)
    assert run.info.status == "FINISHED"
    assert {f"tag{number}": str(number) for number in range(50)}.items() <= run.data.tags.items()
    assert len(MlflowClient(tracking_uri=sqlite_uri).get_metric_history(run.info.run_id, "a")) == 50


def test_tags_without_tracking_cost_nothing(tmp_path: Path) -> None:
    sink = MlflowSink(tmp_path, "none", "pmlm-rte", "run", parent=tmp_path.parent)
    sink.tag("outcome", "finished")
    assert sink.finish()
    assert not list(tmp_path.iterdir())
