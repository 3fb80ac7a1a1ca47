"""The way of a journal to a real MLflow store (SQLite), with crashes and resumes in between."""

import importlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracking_data import write_steps

from pipelines.compare.config import CompareConfig
from pipelines.lock import locked
from pipelines.pretrain.config import PretrainConfig
from pipelines.sweep.config import SweepConfig
from pipelines.sync.config import SyncConfig
from pipelines.sync.run import run as sync
from pipelines.tracking import store
from pipelines.tracking.delivery import RUN_KEY_TAG, Delivery
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink
from pmlm_core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    uri = f"sqlite:///{path}"
    store.open_store(uri, "pmlm")
    return uri


def history(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in MlflowClient(tracking_uri=uri).get_metric_history(run_id, name)]


def run_of(uri: str, run_dir: Path) -> Any:
    record = Record.load(run_dir)
    assert record is not None
    return MlflowClient(tracking_uri=uri).get_run(record.run_id)


# ---- the address ----


def test_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.resolve(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert store.resolve(None) == "http://tracker:5000"
    assert store.resolve("sqlite:////srv/x.db") == "sqlite:////srv/x.db"
    for wrong in ("mlruns", "file:///tmp/mlruns", "ftp://u:hush@h"):
        with pytest.raises(ConfigError, match="no MLflow store") as caught:
            store.resolve(wrong)
        assert "hush" not in str(caught.value)


def test_none_switches_tracking_off(tmp_path: Path) -> None:
    sink = MlflowSink(tmp_path, "none", "pmlm", "run")
    sink.ship(5)
    assert sink.flush(0.1)
    assert sink.finish()
    assert not (tmp_path / "mlflow.json").exists()


# ---- a real store ----


@pytest.mark.parametrize(
    ("stage", "config", "functions"),
    [
        ("sweep", SweepConfig(benchmark=["rte"], model="m", data_dir=["d"], register_model="best"), ("run", "dry_run")),
        ("pretrain", PretrainConfig(data_dir="d", output_dir="o", register_model="best"), ("run", "dry_run")),
        ("compare", CompareConfig(), ("run",)),
    ],
)
def test_what_needs_mlflow_is_refused_where_the_environment_switches_it_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, config: Any, functions: tuple[str, ...]
) -> None:
    """Not by `validate`: `pmlm submit` asks that of a command for another machine."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"pipelines.{stage}.run")
    for function in functions:
        with pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_URI=none in the environment .*--tracking_uri"):
            getattr(module, function)(config)
    assert not [*tmp_path.iterdir()]
    assert store.is_off(None)
    assert not store.is_off("sqlite:///mlflow.db")  # the option goes before the variable
    store.check_registers("best", "sqlite:///mlflow.db")


def test_a_run_arrives_whole(tmp_path: Path, sqlite_uri: str) -> None:
    journal = Journal(tmp_path)
    sink = MlflowSink(
        tmp_path, sqlite_uri, "pmlm", "whole", {"model": {"layers": 2}, "long": "x" * 9000}, {"data_fingerprint": "abc"}
    )
    write_steps(journal, range(1, 1201))  # more than one call holds
    sink.ship(600)
    assert sink.flush(60)
    record = Record.load(tmp_path)
    assert record is not None
    assert record.run_id
    assert [step for step, _ in history(sqlite_uri, record.run_id, "train/loss")] == list(range(1, 601))
    assert sink.finish("FINISHED", 60)
    losses = history(sqlite_uri, record.run_id, "train/loss")
    assert losses == [(step, 10.0 / (1 + step)) for step in range(1, 1201)]
    run = run_of(sqlite_uri, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "whole"
    assert run.data.params["model.layers"] == "2"
    assert run.data.tags["data_fingerprint"] == "abc"


def test_a_resumed_run_sends_no_step_twice(tmp_path: Path, sqlite_uri: str) -> None:
    journal = Journal(tmp_path)
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "resumed", {"num_workers": 2})
    write_steps(journal, range(1, 31))
    journal.append(20, {"eval/ae_loss": 3.0})
    sink.ship(20)
    assert sink.flush(60)
    first_id = run_of(sqlite_uri, tmp_path).info.run_id
    journal.close()
    del sink, journal  # the process dies here; the checkpoint of step 10 is the newest that can be read

    journal = Journal(tmp_path)
    journal.truncate_after(10)
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "resumed", {"num_workers": 4})
    write_steps(journal, range(11, 41))
    assert sink.finish("FINISHED", 60)
    run = run_of(sqlite_uri, tmp_path)
    assert run.info.run_id == first_id
    assert [step for step, _ in history(sqlite_uri, first_id, "train/loss")] == list(range(1, 41))
    assert run.data.params["num_workers"] == "2"
    assert run.data.tags["resumed.num_workers"] == "4"


def test_a_clock_that_jumps_moves_no_figure(tmp_path: Path, sqlite_uri: str) -> None:
    journal = Journal(tmp_path)
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "clock")
    for step in range(1, 31):
        journal.append(step, {"train/loss": float(step)}, at=1.7e9 + step + (-86400 if 10 <= step < 20 else 3600))
        if step == 15:
            sink.ship(step)
            assert sink.flush(60)
    assert sink.finish("FINISHED", 60)
    run = run_of(sqlite_uri, tmp_path)
    found = history(sqlite_uri, run.info.run_id, "train/loss")
    assert sorted(found) == [(step, float(step)) for step in range(1, 31)]
    assert run.data.metrics["train/loss"] == 30.0


def test_a_journal_cut_under_an_open_sink(tmp_path: Path, sqlite_uri: str) -> None:
    """The driver ships while a worker dies, is replaced, cuts the journal and writes past where the driver had read."""
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "cut")
    first = Journal(tmp_path)
    write_steps(first, range(1, 16))
    sink.ship(10)
    assert sink.flush(60)
    first.close()
    second = Journal(tmp_path)
    second.truncate_after(3)  # its newest checkpoint was damaged
    for step in range(4, 31):  # shorter lines: where the driver had read to is now beyond steps it has not seen
        second.append(step, {"train/loss": 1.0})
    assert sink.finish("FINISHED", 60)
    run_id = run_of(sqlite_uri, tmp_path).info.run_id
    assert [step for step, _ in history(sqlite_uri, run_id, "train/loss")] == list(range(1, 31))


def test_an_answer_that_was_lost_sends_nothing_twice(tmp_path: Path, sqlite_uri: str) -> None:
    """The store took the run and its figures, but this side died before noting it."""
    journal = Journal(tmp_path)
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "lost-answer")
    before = Record.load(tmp_path)
    assert before is not None
    write_steps(journal, range(1, 11))
    sink.ship(10)
    assert sink.flush(60)
    before.run_id, before.shipped = None, {}
    before.save(tmp_path)
    # Cut and written again, the same steps carry other times: MLflow itself would keep both.
    journal.truncate_after(5)
    write_steps(journal, range(6, 13))
    assert MlflowSink(tmp_path, sqlite_uri, "pmlm", "lost-answer").finish("FINISHED", 60)
    client = MlflowClient(tracking_uri=sqlite_uri)
    experiment = client.get_experiment_by_name("pmlm")
    runs = client.search_runs([experiment.experiment_id], f"tags.`{RUN_KEY_TAG}` = '{before.run_key}'")
    assert len(runs) == 1
    steps = [step for step, _ in history(sqlite_uri, runs[0].info.run_id, "train/loss")]
    assert steps == list(range(1, 13))


def test_a_store_that_stays_away(tmp_path: Path) -> None:
    warnings: list[str] = []
    sink = MlflowSink(tmp_path, "http://127.0.0.1:9", "pmlm", "run", warn=warnings.append)
    Journal(tmp_path).append(1, {"a": 1.0})
    assert not sink.finish("FAILED", timeout=5.0)
    assert len(warnings) == 2
    assert "training goes on" in warnings[0]
    assert f"pmlm sync --run_dir {tmp_path}" in warnings[1]
    record = Record.load(tmp_path)
    assert record is not None
    assert record.status == "FAILED"


def test_an_emptied_store_gets_the_whole_run_again(tmp_path: Path, sqlite_uri: str) -> None:
    journal = Journal(tmp_path)
    write_steps(journal, range(1, 6))
    record = Record(sqlite_uri, "pmlm", "r", run_id="0" * 32, shipped={"train/loss": 5})
    record.save(tmp_path)
    assert MlflowSink(tmp_path, sqlite_uri, "pmlm", "r").finish("FINISHED", 60)
    run_id = run_of(sqlite_uri, tmp_path).info.run_id
    assert [step for step, _ in history(sqlite_uri, run_id, "train/loss")] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_two_processes_open_a_fresh_store(tmp_path: Path) -> None:
    """Two runs begin at the same moment in a SQLite file that does not exist: MLflow by itself fails in one."""
    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    program = (
        "import sys\n"
        "from pipelines.tracking.journal import Journal\n"
        "from pipelines.tracking.sink import MlflowSink\n"
        "journal = Journal(sys.argv[1])\n"
        "problems = []\n"
        "sink = MlflowSink(sys.argv[1], sys.argv[2], 'pmlm', 'shared', warn=problems.append)\n"
        "for step in range(1, 301):\n"
        "    journal.append(step, {'train/loss': 1.0 / step})\n"
        "    sink.ship(step)\n"
        "sys.exit(0 if sink.finish('FINISHED', 200) and not problems else str(problems))\n"
    )
    folders = [tmp_path / name for name in ("one", "two")]
    started = [subprocess.Popen([sys.executable, "-c", program, str(f), uri]) for f in folders]
    assert [process.wait(240) for process in started] == [0, 0]
    for folder in folders:
        run_id = run_of(uri, folder).info.run_id
        assert [step for step, _ in history(uri, run_id, "train/loss")] == list(range(1, 301))


def test_a_damaged_record_warns_and_says_what_to_do(tmp_path: Path, sqlite_uri: str) -> None:
    (tmp_path / "mlflow.json").write_text("{")
    with pytest.raises(DataError, match="remove it"):
        Record.load(tmp_path)
    warnings: list[str] = []
    sink = MlflowSink(tmp_path, sqlite_uri, "pmlm", "r", warn=warnings.append)
    sink.ship(1)
    assert not sink.finish()
    assert len(warnings) == 1
    assert "mlflow.json" in warnings[0]


def test_a_server_that_never_answers_stalls_nothing(tmp_path: Path) -> None:
    """A listening socket nobody serves: connections are taken, answers never come."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        warnings: list[str] = []
        begin = time.monotonic()
        sink = MlflowSink(tmp_path, uri, "pmlm", "r", warn=warnings.append)
        journal = Journal(tmp_path)
        for step in range(1000):
            journal.append(step, {"a": 1.0})
            sink.ship(step)
        assert not sink.finish("FINISHED", timeout=1.0)
        assert time.monotonic() - begin < 8
        assert warnings


def test_a_delivery_that_comes_back_late_does_not_undo_what_was_noted_since(tmp_path: Path) -> None:
    record = Record("http://127.0.0.1:9", "pmlm", "r")
    late = Delivery(tmp_path, "http://127.0.0.1:9", record)
    record.save(tmp_path)
    late.close()
    noted = Record.load(tmp_path)
    assert noted is not None
    noted.pending_model = {"name": "m", "checkpoint": "c"}
    noted.save(tmp_path)
    late._save()
    after = Record.load(tmp_path)
    assert after is not None
    assert after.pending_model == {"name": "m", "checkpoint": "c"}


def test_the_record_says_whether_all_has_arrived(tmp_path: Path, sqlite_uri: str) -> None:
    Journal(tmp_path).append(1, {"a": 1.0})
    assert MlflowSink(tmp_path, sqlite_uri, "pmlm", "arrived").finish("FINISHED", 60)
    record = Record.load(tmp_path)
    assert record is not None
    assert (record.delivered, record.status) == (True, "FINISHED")
    assert [path.name for path in tmp_path.glob("mlflow.json*")] == ["mlflow.json"]


def test_sync_does_not_make_a_folder_that_is_gone_anew(tmp_path: Path) -> None:
    gone = tmp_path / "working_dir_of_a_job"
    Record(f"sqlite:///{gone}/mlflow.db", "pmlm", "r").save(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"in a folder that is gone .*; give --tracking_uri"):
        sync(SyncConfig(run_dir=str(tmp_path / "run")))
    assert not gone.exists()


def test_sync_keeps_out_of_a_run_in_training(tmp_path: Path) -> None:
    Record("http://127.0.0.1:9", "pmlm", "r").save(tmp_path)
    with locked(tmp_path, "pmlm pretrain"), pytest.raises(ConfigError, match=r"in use by pmlm pretrain \(process \d+"):
        sync(SyncConfig(str(tmp_path), timeout=0.1))
