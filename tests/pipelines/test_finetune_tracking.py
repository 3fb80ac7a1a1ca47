"""Fine-tuning in MLflow: figures, where the model came from, predictions and scores; and a server that is away."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews

from pipelines.finetune import record
from pipelines.finetune import run as stage
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import Job
from pipelines.finetune.run import run
from pipelines.run_folder import RunDir
from pipelines.sync.config import SyncConfig
from pipelines.sync.run import run as sync
from pipelines.tracking import sink
from pipelines.tracking.record import Record
from pipelines.tracking.store import open_store
from pipelines.upload.background import Uploads
from pmlm_core.tasks.scores.paired import figure


@pytest.fixture
def options(tmp_path: Path, sample_tokenizer_dir: str) -> dict[str, Any]:
    """A run whose checkpoint lies in a pre-training run that MLflow knows."""
    checkpoint = make_checkpoint(tmp_path / "pretrain" / "checkpoints" / "step-00000001", sample_tokenizer_dir)
    Record("sqlite:///x.db", "pmlm-pretrain", "pretrain", run_id="abc123").save(tmp_path / "pretrain")
    data = write_reviews(tmp_path / "data")
    return options_for("classification", checkpoint, data, tmp_path / "out", num_train_epochs=2)


def test_a_run_and_its_files_arrive(tmp_path: Path, options: dict[str, Any]):
    import mlflow

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run(FinetuneConfig(**{**options, "tracking_uri": store}))
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("pmlm-finetune")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.tags["pretrained.mlflow_run_id"] == "abc123"
    assert len(found.data.tags["pretrained.sha256"]) == 64
    assert found.data.params["learning_rate"] == "0.003"
    scores = json.loads((tmp_path / "out" / "run" / "seed-0" / "scores.json").read_text())
    assert json.loads(found.data.tags["scorers"]) == scores["scorers"]
    assert found.data.metrics["final/dev/accuracy"] == scores["scores"]["dev"]["accuracy"]
    assert len(client.get_metric_history(found.info.run_id, "eval/accuracy")) == 2
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"scores.json", "predictions", "model", "paired"} <= names
    assert [file.path for file in client.list_artifacts(found.info.run_id, "paired")] == ["paired/dev.json"]
    paired = json.loads((tmp_path / "out" / "run" / "seed-0" / "paired" / "dev.json").read_text())
    assert len(paired["ids"]) == 30
    for name, entry in paired["figures"].items():
        assert figure(name, entry) == pytest.approx(scores["scores"]["dev"][name])
    (table,) = [file.path for file in client.list_artifacts(found.info.run_id, "predictions") if "test" in file.path]
    sent = Path(client.download_artifacts(found.info.run_id, table, str(tmp_path))).read_text()
    assert sent == (tmp_path / "out" / "run" / "seed-0" / table).read_text()


def interrupted_run(tmp_path: Path, options: dict[str, Any]) -> tuple[Any, Any]:
    """A command with an upload that a signal ends: MLflow's client, and what it has of the one run."""
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(KeyboardInterrupt):
        run(FinetuneConfig(**{**options, "tracking_uri": store, "upload_dir": str(tmp_path / "there")}))
    client = MlflowClient(store)
    (tracked,) = client.search_runs([client.get_experiment_by_name("pmlm-finetune").experiment_id])
    return client, tracked


def test_a_signal_while_the_store_is_waited_for_still_ends_the_seed_in_mlflow(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    waited = []

    def interrupted(*told: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    really = Uploads.close

    def close(uploads: Uploads, leaving: bool = False) -> bool:
        waited.append(leaving)
        really(uploads, leaving)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_fit", interrupted)
    monkeypatch.setattr(Uploads, "close", close)
    _, tracked = interrupted_run(tmp_path, options)
    assert tracked.info.status == "KILLED"
    assert waited == [True], "after the second signal the run's own upload is not waited for"


KILLED = """
import json, os, sys
from pipelines import cli
from pipelines.tracking import artifacts, sink

def kill(*given, **more):
    os.kill(os.getpid(), 9)

place, name = {"finish": (sink.MlflowSink, "finish"), "log_artifacts": (artifacts, "log_artifacts")}[sys.argv[1]]
setattr(place, name, kill)
cli.main(sys.argv[2:])
"""


@pytest.mark.parametrize("at", ["finish", "log_artifacts"])
def test_what_a_command_killed_after_the_scores_had_not_sent_is_sent_by_the_same_command(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, at: str
):
    from mlflow import MlflowClient

    options["tracking_uri"] = store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    open_store(store, "pmlm-finetune")  # a kill while MLflow makes its tables would leave it half of them
    told = ["finetune", *(f"--{name}={value}" for name, value in options.items())]
    killed = subprocess.run([sys.executable, "-c", KILLED, at, *told], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    assert (tmp_path / "out" / "run" / "seed-0" / "scores.json").is_file()
    monkeypatch.setattr(stage, "_train_seed", None)
    run(FinetuneConfig(**options))
    client = MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("pmlm-finetune").experiment_id])
    assert found.info.status == "FINISHED"
    assert "final/dev/accuracy" in found.data.metrics
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"scores.json", "predictions", "model", "paired"} <= names
    monkeypatch.setattr(sink, "MlflowSink", None)  # nothing is left to be sent
    run(FinetuneConfig(**options))


def test_a_finished_seed_stays_in_its_store_from_wherever_the_command_is_given_again(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here, elsewhere, seed = tmp_path / "here", tmp_path / "elsewhere", tmp_path / "out" / "run" / "seed-0"
    config = FinetuneConfig(**{**options, "tracking_uri": None})

    def again(folder: Path, **changed: Any) -> dict[str, Any]:
        """Give the command again, its record changed meanwhile; the record then."""
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        if changed:
            told = {**json.loads((seed / "mlflow.json").read_text()), **changed}
            (seed / "mlflow.json").write_text(json.dumps(told))
        capsys.readouterr()
        run(config)
        return dict(json.loads((seed / "mlflow.json").read_text()))

    first = again(here)
    assert first["tracking_uri"] == f"sqlite:///{here / 'mlflow.db'}"
    assert again(elsewhere) == first
    assert again(elsewhere, delivered=False, sent_artifacts=[]) == first  # what is left goes where the rest is
    assert not list(elsewhere.iterdir())
    lost = again(elsewhere, delivered=False, tracking_uri=f"sqlite:///{tmp_path}/lost/mlflow.db")
    assert not lost["delivered"]
    assert "is gone; give the address by --tracking_uri" in " ".join(capsys.readouterr().out.split())
    away = again(elsewhere, tracking_uri="http://***@127.0.0.1:9")
    assert not away["delivered"]
    assert "user and password" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'named.db'}")
    named = again(elsewhere, run_id=None, shipped={})
    assert (named["tracking_uri"], named["delivered"]) == (f"sqlite:///{tmp_path / 'named.db'}", True)


@pytest.mark.parametrize("pending", [[], ["scores.json"]])
def test_a_seed_of_an_earlier_version_is_sent_again_only_if_files_of_it_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pending: list[str]
):
    store, sent = f"sqlite:///{tmp_path / 'mlflow.db'}", list[str]()
    folder = tmp_path / "seed-0"
    done = Record(store, "pmlm", "seed", run_id="abc", status="FINISHED", delivered=True, pending_artifacts=pending)
    done.save(folder)
    told = json.loads((folder / "mlflow.json").read_text())
    del told["sent_artifacts"]
    (folder / "mlflow.json").write_text(json.dumps(told))
    monkeypatch.setattr(sink.MlflowSink, "__init__", lambda self, *told: None)
    monkeypatch.setattr(sink.MlflowSink, "finish", lambda self, status: sent.append(status))
    monkeypatch.setattr(record, "send_files", lambda job, uri=None: sent.append(uri))
    record.catch_up(cast(Job, SimpleNamespace(run=RunDir(folder), config=SimpleNamespace(tracking_uri=store))))
    assert sent == (["FINISHED", store] if pending else [])


def test_a_signal_while_the_store_of_a_finished_seed_is_waited_for_keeps_nothing_from_mlflow(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    really = Uploads.close

    def close(uploads: Uploads, leaving: bool = False) -> bool:
        really(uploads, leaving)
        raise KeyboardInterrupt

    monkeypatch.setattr(Uploads, "close", close)
    client, tracked = interrupted_run(tmp_path, options)
    assert tracked.info.status == "FINISHED"
    assert "scores.json" in {file.path for file in client.list_artifacts(tracked.info.run_id)}


def test_a_server_that_is_away_stops_nothing_and_gets_the_files_later(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    import mlflow

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
    finish = sink.MlflowSink.finish
    monkeypatch.setattr(sink.MlflowSink, "finish", lambda self, status: finish(self, status, timeout=0.5))
    run(FinetuneConfig(**{**options, "tracking_uri": away}))
    seed = tmp_path / "out" / "run" / "seed-0"
    assert (seed / "model" / "config.json").is_file()
    assert "pmlm sync --run_dir" in capsys.readouterr().out
    left = Record.load(seed)
    assert left is not None
    assert "scores.json" in left.pending_artifacts
    store = f"sqlite:///{tmp_path / 'later.db'}"
    sync(SyncConfig(run_dir=str(seed), tracking_uri=store, timeout=60))
    client = mlflow.MlflowClient(store)
    sent = Record.load(seed)
    assert sent is not None
    assert not sent.pending_artifacts
    assert "scores.json" in {file.path for file in client.list_artifacts(str(sent.run_id))}
