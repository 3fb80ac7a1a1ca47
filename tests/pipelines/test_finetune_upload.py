"""Fine-tuning copied to a real S3 server or a folder, and gone on with from there after the disk was lost."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews
from mlflow import MlflowClient

from pipelines.finetune import epochs, loop, upload
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import settle
from pipelines.finetune.rundir import open_run
from pipelines.leaving import Terminated, heed_sigterm
from pipelines.upload import background, checkpoints, finished, lease
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, ConfigError
from pmlm_core.training import checkpoint
from tests.bucket_server import bucket_on_a_server
from tests.faulty_store import faulty_store
from tests.pipelines.test_finetune_run import Pulled, assert_same, finetuned
from tests.processes import PMLM, below, wait_until, wait_until_gone


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "final", sample_tokenizer_dir)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory, model: str, reviews: str) -> Path:
    """The folder of seed 0, its best epoch before the last one."""
    return finetuned(options_for("classification", model, reviews, tmp_path_factory.mktemp("peace"), seeds="0,3"))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with bucket_on_a_server("finetuned") as uri:
        yield uri


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "elsewhere")
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMLM_STORE_SECONDS", "0.5")
    for name, seconds in (("_RENEW_S", 0.2), ("_LOST_S", 1.0), ("_LOOK_S", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


def interrupted(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, evaluations: int) -> None:
    """The plug is pulled before so many evaluations are done, all seeds together."""
    counted, really = itertools.count(1), epochs.Chooser.scores

    def scores(self: epochs.Chooser, model: Any) -> dict[str, float]:
        if next(counted) == evaluations:
            raise Pulled
        return really(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(epochs.Chooser, "scores", scores)
        with pytest.raises(Pulled):
            finetuned(options)


def assert_same_files(one: Path, other: Path) -> None:
    """Predictions, and what paired tests are computed from, are the same to the byte."""
    found = [
        sorted(path for name in ("predictions", "paired") for path in (run / name).iterdir()) for run in (one, other)
    ]
    assert [path.name for path in found[0]] == [path.name for path in found[1]] != []
    for mine, theirs in zip(*found, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


def uploaded(place: str, seed: int = 0) -> list[str]:
    root = storage.join(place, "run", f"seed-{seed}", "checkpoints")
    names = list(storage.folders_in(root))  # nothing is read, for they come and go while a seed is trained
    return [name for name in names if checkpoint.MANIFEST in storage.names_in(storage.join(root, name))]


@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_a_run_whose_disk_was_lost_ends_as_one_in_peace(
    tmp_path: Path, model: str, reviews: str, in_peace: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    tracked = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = options_for("classification", model, reviews, tmp_path / "out", save_steps=3, tracking_uri=tracked)
    options |= {"upload_dir": place, "seeds": "0,3"}
    interrupted(options, monkeypatch, 4)
    best, newest = uploaded(place)  # the best epoch, and the last checkpoint before the plug
    assert best < newest == "step-00000030"
    shutil.rmtree(tmp_path / "out")
    interrupted(options, monkeypatch, 6)  # the second seed's third
    told = capsys.readouterr().out
    assert f"fetched {newest} of this run" in told
    assert "resumed from the checkpoint of step 30" in told
    assert finished.manifest_in(storage.join(place, "run", "seed-0")) is not None
    assert uploaded(place) == []
    shutil.rmtree(tmp_path / "out")
    seed = finetuned(options)
    told = capsys.readouterr().out
    assert "fetched seed-0, which is finished, from" in told
    assert "seed 0 is finished: it was trained and scored before" in told
    for name in ("seed-0", "seed-3"):
        assert_same(seed.with_name(name), in_peace.with_name(name))
        assert_same_files(seed.with_name(name), in_peace.with_name(name))
    client = MlflowClient(tracked)
    found = client.search_runs([client.get_experiment_by_name("pmlm-finetune").experiment_id])
    assert sorted(each.info.status for each in found) == ["FINISHED", "FINISHED"]  # none twice
    for each in found:
        assert [figure.step for figure in client.get_metric_history(each.info.run_id, "eval/accuracy")] == [
            8,
            16,
            24,
            32,
            40,
            48,
        ]

    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(loop, "finetune", None)  # nothing is trained
    finetuned(options)
    told = capsys.readouterr().out
    assert told.count("which is finished, from") == told.count("it was trained and scored before") == 2
    assert_same(seed, in_peace)
    assert json.loads((tmp_path / "out" / "run" / "scores.json").read_text())["seeds"].keys() == {"0", "3"}
    assert lease.NOTE not in storage.names_in(storage.join(place, "run"))


@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_of_what_is_not_whole_there_nothing_is_taken_and_the_result_is_the_same(
    tmp_path: Path, model: str, reviews: str, in_peace: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    options = options_for("classification", model, reviews, tmp_path / "out", upload_dir=place, seeds="0,3")
    finetuned(options)
    home = storage.join(place, "run")
    storage.write_bytes(storage.join(home, "seed-0", "predictions", "predictions.test.tsv"), b"rotten")
    storage.remove_file(storage.join(home, "seed-3", finished.MANIFEST))
    shutil.rmtree(tmp_path / "out")
    seed = finetuned(options)
    told = capsys.readouterr().out
    assert "seed-0 in" in told
    assert "is damaged (predictions/predictions.test.tsv has 6 bytes" in told
    assert "which is finished, from" not in told
    for name in ("seed-0", "seed-3"):
        assert_same(seed.with_name(name), in_peace.with_name(name))
    assert finished.take(storage.join(home, "seed-0"), tmp_path / "again", ["scores.json"]) is None
    assert_same(tmp_path / "again", in_peace)
    assert not list((tmp_path / "again").glob(".*"))


@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_a_checkpoint_without_that_of_the_best_epoch_is_passed_over(
    tmp_path: Path, model: str, reviews: str, in_peace: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    options = options_for("classification", model, reviews, tmp_path / "out", save_steps=3, upload_dir=place)
    interrupted(options, monkeypatch, 4)
    best, newest = uploaded(place)
    storage.write_bytes(storage.join(place, "run", "seed-0", "checkpoints", best, "model.safetensors"), b"rotten")
    shutil.rmtree(tmp_path / "out")
    assert_same(finetuned(options), in_peace)
    told = capsys.readouterr().out
    assert f"{newest} in" in told
    assert f"is damaged (it needs {best}: model.safetensors has 6 bytes" in told
    assert "no checkpoint of seed-0" in told


@pytest.mark.slow
def test_a_store_that_fails_now_and_then_is_asked_again(
    tmp_path: Path, model: str, reviews: str, in_peace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setenv("PMLM_STORE_SECONDS", "20")
    with faulty_store("finetuned-faulty") as store:
        options = options_for("classification", model, reviews, tmp_path / "out", upload_dir=f"{store.uri}/there")
        for kind, method in (("slow_down", "PUT"), ("drop", "PUT"), ("broken", "POST"), ("drop", "HEAD")):
            store.fail(kind, 1, method)
        interrupted(options, monkeypatch, 4)
        shutil.rmtree(tmp_path / "out")
        for kind in ("cut", "too_many", "drop"):
            store.fail(kind, 1, "GET", "model.safetensors")
        assert_same(finetuned(options), in_peace)
        left = [kind for kind, concerns in store.faults]
        assert "cut" not in left
        assert "too_many" not in left
    assert "cannot be uploaded" not in capsys.readouterr().out


def test_a_store_that_is_away_costs_a_warning_and_the_same_command_catches_up(
    tmp_path: Path, model: str, reviews: str, in_peace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    place = tmp_path / "elsewhere"
    options = options_for("classification", model, reviews, tmp_path / "out", upload_dir=str(place))
    interrupted(options, monkeypatch, 3)
    shutil.move(place, tmp_path / "away")
    place.write_text("in the way")  # nothing can be made below a file
    assert_same(finetuned(options), in_peace)
    told = capsys.readouterr().out
    assert "has not answered" in told
    assert "checkpoints cannot be uploaded" in told
    assert "finished seeds cannot be uploaded" in told
    place.unlink()
    shutil.move(tmp_path / "away", place)
    finetuned(options)
    assert "seed-0 uploaded to" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    assert_same(finetuned(options), in_peace)


def test_without_anything_here_a_store_that_is_away_is_refused(tmp_path: Path, model: str, reviews: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away = f"s3://runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    with pytest.raises(CheckpointError, match="command again when the store is back"):
        finetuned(options_for("classification", model, reviews, tmp_path, upload_dir=away))
    assert not (tmp_path / "features").exists()  # before any work


def test_another_run_in_its_place_is_refused(tmp_path: Path, model: str, reviews: str, place: str):
    finetuned(options_for("classification", model, reviews, tmp_path / "a", upload_dir=place, num_train_epochs=1))
    other = options_for("classification", model, reviews, tmp_path / "b", upload_dir=place, num_train_epochs=2)
    with pytest.raises(ConfigError, match=r"num_train_epochs was 1 and is 2.*another run_name"):
        finetuned(other)
    storage.write_bytes(storage.join(place, "run", "run.json"), b"{}")
    with pytest.raises(ConfigError, match="is no record of a run"):
        finetuned(other)


def test_a_second_machine_is_refused_while_the_first_lives(
    tmp_path: Path, model: str, reviews: str, place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "_LOST_S", 5.0)
    first = options_for("classification", model, reviews, tmp_path / "a", upload_dir=place)
    job, _ = settle(FinetuneConfig(**first))
    open_run(job)
    with upload.lease_of(job):
        upload.fetch(job)
        with pytest.raises(ConfigError, match=r"in use by pmlm finetune \(process .*another folder: end it"):
            finetuned({**first, "output_dir": str(tmp_path / "b")})


def test_who_is_told_to_end_does_not_wait_for_a_store_that_is_away(
    tmp_path: Path, model: str, reviews: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    place, really = tmp_path / "elsewhere", checkpoints.mirror
    options = options_for("classification", model, reviews, tmp_path / "out", upload_dir=str(place))
    patience: list[float] = []

    def away(*told: Any, **named: Any) -> Any:
        from pmlm_core.stores import patience as now

        patience.append(now())
        if len(patience) == 1:
            return really(*told, **named)
        raise OSError("away")

    monkeypatch.setenv("PMLM_STORE_SECONDS", "100")
    monkeypatch.setattr(background, "_LEAVING_PATIENCE_S", 0.1)
    monkeypatch.setattr(checkpoints, "mirror", away)
    evaluated, scores = itertools.count(1), epochs.Chooser.scores

    def count(self: epochs.Chooser, model: Any) -> dict[str, float]:
        if next(evaluated) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, model)

    monkeypatch.setattr(epochs.Chooser, "scores", count)
    before = signal.getsignal(signal.SIGTERM)
    heed_sigterm()
    with pytest.raises(Terminated):
        finetuned(options)
    signal.signal(signal.SIGTERM, before)
    assert patience[-1] == 0.1
    assert patience[0] == 100


def test_what_changes_while_it_is_copied_is_not_called_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, home = tmp_path / "seed-0", str(tmp_path / "there")
    (folder / "model").mkdir(parents=True)
    for name in ("scores.json", "model/weights", "metrics.jsonl"):
        (folder / name).write_text("1")
    (folder / ".draft").write_text("not this")
    really, writes = finished._copy, itertools.count()

    def grows(path: Path, target: str) -> None:
        really(path, target)
        with (folder / growing).open("a") as file:
            file.write(str(next(writes)))

    sent = finished.Finished()
    with monkeypatch.context() as patch:
        patch.setattr(finished, "_copy", grows)
        growing = "scores.json"
        assert not sent.send(folder, home)
        assert finished.manifest_in(home) is None
        growing = "metrics.jsonl"  # that of a finished run does, while MLflow is told of it
        assert sent.send(folder, home)
    sent.send(folder, home)
    assert not sent.send(folder, home)
    assert (Path(home) / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert finished.take(home, tmp_path / "back", ["scores.json"]) is None
    assert {path.name for path in (tmp_path / "back").rglob("*") if path.is_file()} == {
        "scores.json",
        "weights",
        "metrics.jsonl",
    }
    shutil.rmtree(folder / "model")
    assert sent.send(folder, home)
    assert not (Path(home) / "model" / "weights").exists()
    assert not finished.Finished().send(folder, home)  # by another process, which has to ask

    whole = (folder / "scores.json").read_text()
    (folder / "scores.json").write_text("for a moment")

    def back_again(path: Path, target: str) -> None:
        really(path, target)
        (folder / "scores.json").write_text(whole)

    with monkeypatch.context() as patch:
        patch.setattr(finished, "_copy", back_again)
        sent.send(folder, home)
    assert (Path(home) / "scores.json").read_text() == whole
    assert finished.take(home, tmp_path / "once more", ["scores.json"]) is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_workers_lost_with_their_machine_end_as_in_peace(tmp_path: Path, model: str, reviews: str, bucket: str):
    place, log = f"{bucket}/{tmp_path.name}", tmp_path / "log.txt"
    two = {"num_workers": 2, "save_steps": 3, "num_train_epochs": 12}
    options = options_for("classification", model, reviews, tmp_path / "out", upload_dir=place, **two)

    def start() -> "subprocess.Popen[bytes]":
        command = ["finetune", *(f"--{name}={value}" for name, value in options.items())]
        with log.open("a") as out:
            return subprocess.Popen([sys.executable, "-c", PMLM, *command], stdout=out, stderr=out)

    first = start()
    wait_until(lambda: len(uploaded(place)) == 2, first, log)
    machine = [first.pid, *below(first.pid)]  # with its Ray
    for pid in machine:
        os.kill(pid, signal.SIGKILL)
    first.wait()
    wait_until_gone(machine)
    shutil.rmtree(tmp_path / "out")
    storage.remove_file(storage.join(place, "run", lease.NOTE))  # as who knows that the machine is gone
    assert start().wait(timeout=300) == 0, log.read_text()
    assert "fetched step-" in log.read_text()
    seed = tmp_path / "out" / "run" / "seed-0"
    assert finished.manifest_in(storage.join(place, "run", "seed-0")) is not None
    peace = finetuned(options_for("classification", model, reviews, tmp_path / "peace", **two))
    assert_same(seed, peace)
    assert_same_files(seed, peace)


@pytest.mark.parametrize(
    ("upload_dir", "said"),
    [
        ("out", "upload_dir is output_dir"),
        ("out/run/seed-0", "inside output_dir"),
        ("ftp://bucket/runs", "'ftp://' is not supported"),
        ("s3://", "names no bucket"),
    ],
)
def test_a_place_that_will_not_do_is_refused_at_once(upload_dir: str, said: str):
    with pytest.raises(ConfigError, match=said):
        FinetuneConfig(task="rte", model="m", data_dir="d", output_dir="out", upload_dir=upload_dir).validate()
    FinetuneConfig(task="rte", model="m", data_dir="d", output_dir="out", upload_dir="out-there").validate()
