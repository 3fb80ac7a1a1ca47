"""A checkpoint registered in a real MLflow store, and used from there by a process that cannot see this repository."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from finetuning_data import make_checkpoint
from mlflow import MlflowClient

from pipelines.registry import models
from pipelines.sync.config import SyncConfig
from pipelines.sync.run import run as sync
from pipelines.tracking import store
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink
from pmlm_core.errors import CheckpointError, ConfigError, PmlmError
from pmlm_core.model.filling import Filler

TEXT = "The old [MASK] went into the [MASK]."


@pytest.fixture(scope="module")
def checkpoint(sample_tokenizer_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, sample_tokenizer_dir)
    (folder / "optimizer.safetensors").write_bytes(b"large")
    return folder


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.open_store(f"sqlite:///{path}", "pmlm")
    return path


def test_the_environment_is_as_before(
    tmp_path: Path, checkpoint: Path, database: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://the.user.said")
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    uri = f"sqlite:///{database}"
    assert MlflowSink(tmp_path, uri, "pmlm", "here").finish("FINISHED", 60)
    assert models.register(tmp_path, checkpoint, "pmlm-here", uri) == "pmlm-here version 1"
    client = MlflowClient(uri, uri)
    (experiment,) = [each.experiment_id for each in client.search_experiments() if each.name == "pmlm"]
    (logged,) = client.search_logged_models([experiment], filter_string="name = 'pmlm-here'")
    said = json.loads(logged.tags["mlflow.modelVersions"])  # by which MLflow's pages link the model to its version
    assert [(each["name"], int(each["version"])) for each in said] == [("pmlm-here", 1)]
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://the.user.said"
    assert "MLFLOW_REGISTRY_URI" not in os.environ
    assert capfd.readouterr() == ("made MLflow model: pmlm-here version 1\n", "")  # of MLflow itself, nothing


@pytest.mark.slow
def test_a_registered_model_works_without_this_repository(tmp_path: Path, checkpoint: Path, database: Path) -> None:
    uri = f"sqlite:///{database}"
    run_dir = tmp_path / "run"
    sink = MlflowSink(run_dir, uri, "pmlm", "run")
    Journal(run_dir).append(1, {"train/loss": 1.0})
    assert sink.finish("FINISHED", 60)
    assert models.register(run_dir, checkpoint, "pmlm-test", uri) == "pmlm-test version 1"
    record = Record.load(run_dir)
    assert record is not None
    assert record.pending_model is None

    stored = {path.name for path in database.parent.rglob("*") if path.is_file()}
    assert {"model.safetensors", "config.json", "fill_model.py", "MLmodel"} <= stored
    assert not {"optimizer.safetensors", "python_model.pkl"} & stored

    # A fresh process, elsewhere, without the editable installation on its path: only what the model carries.
    program = (
        "import sys, json, mlflow\n"
        "sys.meta_path = [f for f in sys.meta_path if '__editable__' not in repr(f)]\n"
        "sys.path = [p for p in sys.path if p != sys.argv[1]]\n"
        "mlflow.set_tracking_uri(sys.argv[2])\n"
        "model = mlflow.pyfunc.load_model('models:/pmlm-test/1')\n"
        "import pmlm_core\n"
        "print(json.dumps([pmlm_core.__file__, model.predict(['" + TEXT + "'], params={'top_k': 3})]))\n"
    )
    repository = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-W", "ignore", "-c", program, repository, uri]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    where, (answer,) = json.loads(done.stdout.strip().splitlines()[-1])
    assert not where.startswith(repository)
    (expected,) = Filler(str(checkpoint)).fill([TEXT], top_k=3)
    assert answer["filled"] == expected.filled
    assert [[c["token"] for c in mask] for mask in answer["masks"]] == [[c.text for c in m] for m in expected.masks]


def test_a_registration_that_failed_is_done_by_sync(tmp_path: Path, checkpoint: Path, database: Path) -> None:
    run_dir, away, uri = tmp_path / "run", "http://127.0.0.1:9", f"sqlite:///{database}"
    warnings: list[str] = []
    sink = MlflowSink(run_dir, away, "pmlm", "late", warn=warnings.append)
    Journal(run_dir).append(1, {"train/loss": 1.0})
    assert not sink.finish("FINISHED", 0.1)
    assert models.register(run_dir, checkpoint, "pmlm-late", away, "champion", warn=warnings.append) is None
    assert "pmlm-late is not registered" in warnings[-1]

    config = SyncConfig(run_dir=str(run_dir), tracking_uri=uri)
    config.validate()
    sync(config)
    client = MlflowClient(uri, uri)
    (found,) = client.search_model_versions("name = 'pmlm-late'")
    assert client.get_model_version_by_alias("pmlm-late", "champion").version == found.version
    record = Record.load(run_dir)
    assert record is not None
    assert found.run_id == record.run_id
    assert client.get_run(record.run_id).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(record.run_id, "train/loss")] == [1]


def test_a_registration_that_fails_leaves_the_run_as_it_ended(tmp_path: Path, checkpoint: Path, database: Path) -> None:
    uri = f"sqlite:///{database}"
    warnings: list[str] = []
    assert MlflowSink(tmp_path, uri, "pmlm", "good").finish("FINISHED", 60)
    assert models.register(tmp_path, checkpoint, "no/name:", uri, warn=warnings.append) is None
    assert "no/name: is not registered" in warnings[-1]
    record = Record.load(tmp_path)
    assert record is not None
    assert MlflowClient(uri, uri).get_run(str(record.run_id)).info.status == "FINISHED"


def test_a_registration_whose_answer_was_lost_is_not_done_twice(
    tmp_path: Path, checkpoint: Path, database: Path
) -> None:
    uri = f"sqlite:///{database}"
    assert MlflowSink(tmp_path, uri, "pmlm", "once").finish("KILLED", 60)
    assert models.register(tmp_path, checkpoint, "pmlm-once", uri) == "pmlm-once version 1"
    record = Record.load(tmp_path)
    assert record is not None
    wanted = {"name": "pmlm-once", "checkpoint": str(checkpoint), "alias": "champion"}
    record.registered, record.pending_model = None, wanted
    record.save(tmp_path)
    assert models.register_pending(tmp_path, uri) == "pmlm-once version 1"
    client = MlflowClient(uri, uri)
    assert len(client.search_model_versions("name = 'pmlm-once'")) == 1
    assert int(client.get_model_version_by_alias("pmlm-once", "champion").version) == 1
    assert client.get_run(str(record.run_id)).info.status == "KILLED"


def test_an_alias_stays_with_a_version_that_is_better_on_the_same_data(
    tmp_path: Path,
    checkpoint: Path,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri, form, warnings = f"sqlite:///{database}", models.form_of(checkpoint), list[str]()
    client = MlflowClient(uri, uri)
    client.create_registered_model("pmlm-best")

    def create(client: MlflowClient, run_dir: Path, run_id: str, checkpoint: Path, name: str, *told: object) -> int:
        return int(client.create_model_version(name, str(checkpoint), run_id=run_id).version)

    monkeypatch.setattr(models, "_log_model", create)  # which takes seconds, and is none of this

    def champion_after(score: float, data: str, most: int | None = None, scorer: str = "accuracy; scipy 1.0") -> str:
        """The alias's version once another run is registered: of this score, on at most so many rows of dev data of
        this fingerprint (the epochs chosen by so many), by this scorer."""
        tags = {"metric": "accuracy", "dev.accuracy": str(score)}
        monkeypatch.setattr(models, "form_of", lambda checkpoint: replace(form, tags=tags))
        run_dir = tmp_path / f"{score}-{data}"
        told = {"data.dev": data, "scorers": json.dumps({"accuracy": scorer})}
        assert MlflowSink(run_dir, uri, "pmlm", "one", {"max_predict_rows": most}, told).finish("FINISHED", 60)
        assert models.register(run_dir, checkpoint, "pmlm-best", uri, "champion", warn=warnings.append)
        return str(client.get_model_version_by_alias("pmlm-best", "champion").version)

    assert champion_after(80.0, "a 60") == "1"
    assert "pmlm-best@champion is version 1 now\n" in capsys.readouterr().out
    assert champion_after(9.0, "a 60") == "1"  # not by its letters
    assert "version 2 of pmlm-best is registered without the alias champion: version 1" in warnings[0]
    assert "dev.accuracy 80.00, and 9.00 here" in warnings[0]
    assert "set_registered_model_alias('pmlm-best', 'champion', '2')" in warnings[0]
    assert "champion" not in capsys.readouterr().out
    assert champion_after(81.0, "a 60") == "3"
    assert "pmlm-best@champion is version 3 now; it was version 1\n" in capsys.readouterr().out
    assert champion_after(50.0, "b 60") == "4"  # of other examples, so nobody can say which is better
    assert client.get_model_version("pmlm-best", "4").tags["data.dev"] == "b 60"
    assert champion_after(45.0, "b 40") == "4"  # the final score is on all of them, however many chose the epochs
    assert champion_after(44.0, "b 60", scorer="accuracy; scipy 2.0") == "4"  # the same scorer
    assert len(warnings) == 3
    assert champion_after(100.0, "b 60", most=3) == "7"
    assert champion_after(40.0, "b 60") == "8"  # on all rows, which the few say nothing of
    assert champion_after(30.0, "b 60", scorer="share of exact matches") == "9"
    assert len(warnings) == 3


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        models.register(tmp_path, tmp_path, "x", "none")


def test_sync_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="--run_dir"):
        SyncConfig().validate()
    with pytest.raises(ConfigError, match=r"no mlflow\.json"):
        sync(SyncConfig(run_dir=str(tmp_path)))
    Record("http://***@127.0.0.1:9", "pmlm", "r").save(tmp_path)
    with pytest.raises(PmlmError, match="MLFLOW_TRACKING_URI"):
        sync(SyncConfig(run_dir=str(tmp_path)))
    with pytest.raises(PmlmError, match="nothing is lost"):
        sync(SyncConfig(run_dir=str(tmp_path), tracking_uri="http://127.0.0.1:9", timeout=2.0))
