"""Runs whose output_dir is an address of a real S3 server: worked on here, found there, gone on with from there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews
from sweeping_data import make_sweep

from pipelines.compare.config import CompareConfig
from pipelines.compare.fetched import fetch
from pipelines.compare.folder_source import FolderSource
from pipelines.compare.run import run as compare
from pipelines.compare.runs import Run
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.run import run as finetune
from pipelines.predict.config import PredictConfig
from pipelines.predict.run import run as predict
from pipelines.pretrain import run as stage
from pipelines.run_place import folder_of, lies_in_store, named, work_folder, worked_on_here
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.run import run as sweep
from pipelines.upload import checkpoints, lease
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, ConfigError
from tests.bucket_server import bucket_on_a_server
from tests.pipelines.test_pretrain_loop import OPTIONS, Pulled
from tests.pipelines.training_without_ray import config_for, curve, pretrain_here, train_here


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with bucket_on_a_server("placed") as uri:
        yield uri


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this machine, which is new."""
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PMLM_STORE_SECONDS", "0.5")
    for name, seconds in (("_RENEW_S", 0.2), ("_LOST_S", 1.0), ("_LOOK_S", 0.1)):
        monkeypatch.setattr(lease, name, seconds)
    return tmp_path / "cache"


def runs_of(config: CompareConfig) -> list[Run]:
    """What is compared, but for the folders in which it was read."""
    with closing(FolderSource(config)) as source:
        return [replace(run, folder=None) for run in source.runs()]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_an_address_is_a_folder_of_this_machine_and_a_place_to_copy_to(machine: Path):
    config = worked_on_here(
        FinetuneConfig(task="rte", model="m", data_dir="d", output_dir="s3://bucket/runs/?region=eu")
    )
    folder = work_folder("s3://bucket/runs?region=eu")
    assert (config.output_dir, config.upload_dir) == (str(folder), "s3://bucket/runs?region=eu")
    assert folder.parent == machine / "runs"
    assert lies_in_store(config)
    assert named(config, folder / "run" / "seed-0") == "s3://bucket/runs/run/seed-0?region=eu"
    assert work_folder("s3://bucket/others") != folder
    assert folder_of("s3://bucket/runs/run?region=eu") == "s3://bucket/runs/run?region=eu"  # nothing of it is here
    (folder / "run").mkdir(parents=True)
    assert folder_of("s3://bucket/runs/?region=eu") == str(folder)
    assert folder_of(named(config, folder / "run")) == str(folder / "run")
    assert folder_of("s3://bucket/runs/run") == "s3://bucket/runs/run"  # another store, perhaps
    ordinary = FinetuneConfig(task="rte", model="m", data_dir="d", output_dir="out", upload_dir="s3://bucket/runs")
    assert worked_on_here(ordinary) is ordinary
    assert not lies_in_store(ordinary)
    assert named(ordinary, Path("out") / "run") == "out/run"


def test_pretraining_is_found_there_and_goes_on_on_another_machine(
    tmp_path: Path, blocks: str, bucket: str, machine: Path, capsys: pytest.CaptureFixture[str]
):
    in_peace = train_here(config_for(blocks, tmp_path / "peace", **OPTIONS))
    place = f"{bucket}/{tmp_path.name}"
    options = {**config_for(blocks, tmp_path, **OPTIONS, cpus_per_worker=1), "output_dir": place}

    def pull(figures: Any) -> None:
        if figures["step"] == 16:
            raise Pulled

    with pytest.raises(Pulled):
        pretrain_here(options, pull)
    shutil.rmtree(machine)
    capsys.readouterr()
    pretrain_here(options)
    said = told(capsys)
    assert "fetched step-00000015 of this run" in said
    final = f"{place}/run/checkpoints/step-00000024"
    assert f"made checkpoint: {final}" in said
    assert f"pmlm fill --model {final}" in said
    assert curve(Path(folder_of(f"{place}/run"))) == curve(in_peace)
    assert not (work_folder(place) / "final").exists()

    there = checkpoints._whole(storage.join(place, "run", "checkpoints"))
    (in_peace / "checkpoints" / "step-00000024" / "model.safetensors").unlink()
    assert json.loads(there["step-00000024"])["step"] == 24
    capsys.readouterr()
    pretrain_here(options)
    assert "is finished: all 24 steps were done before" in told(capsys)


def test_a_run_is_not_called_done_before_it_is_there(
    tmp_path: Path, blocks: str, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    place = f"{bucket}/{tmp_path.name}"
    options = {**config_for(blocks, tmp_path, **OPTIONS, cpus_per_worker=1), "output_dir": place, "max_steps": 2}
    options["tracking_uri"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
    really = checkpoints.mirror

    def away(*given: Any, **more: Any) -> Any:
        raise OSError("away")

    monkeypatch.setattr(checkpoints, "mirror", away)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="The same command here, when the store is back, sends it"):
            pretrain_here({**options, "eval_steps": 2})
    assert "made checkpoint" not in told(capsys)
    monkeypatch.setattr(checkpoints, "mirror", really)
    monkeypatch.setattr(stage, "_fit", None)  # nothing is trained
    pretrain_here({**options, "eval_steps": 2})
    assert f"made checkpoint: {place}/run/checkpoints/step-00000002" in told(capsys)
    record = json.loads(storage.read_bytes(f"{place}/run/mlflow.json"))
    assert (record["status"], record["delivered"]) == ("FINISHED", True)


def test_finetuning_is_found_there_and_compared(
    tmp_path: Path,
    sample_tokenizer_dir: str,
    bucket: str,
    machine: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    model = make_checkpoint(tmp_path / "final", sample_tokenizer_dir)
    place = f"{bucket}/{tmp_path.name}"
    options = options_for("classification", model, write_reviews(tmp_path / "data"), tmp_path, num_train_epochs=1)
    config = FinetuneConfig(**{**options, "output_dir": place})
    config.validate()
    finetune(config)
    said = told(capsys)
    assert f"made model: {place}/run/seed-0/model" in said
    assert {"config.json", "model.safetensors"} <= set(storage.names_in(f"{place}/run/seed-0/model"))
    assert "/cache/runs/" not in said.replace(f"worked on in {machine}", ""), "the user's own place is told"
    inputs = str(next((tmp_path / "data").glob("test.*")))
    predict(PredictConfig(model=f"{place}/run/seed-0/model", inputs=[inputs], output_dir=str(tmp_path / "predicted")))
    assert any((tmp_path / "predicted").glob("*.jsonl"))
    comparing = CompareConfig(folders=[f"{place}/run"])
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with closing(FolderSource(comparing)) as source:
            (here,) = source.runs()
            assert source.paired(here, "dev")
    assert f"cache/runs/{work_folder(place).name}/run has of {place}/run is read instead" in told(capsys)
    shutil.rmtree(machine)
    with closing(FolderSource(comparing)) as source:
        (there,) = source.runs()
        assert replace(there, folder=here.folder) == here
        figure = next(name for name in there.metrics if name.startswith("eval/"))
        assert source.history(there, figure.removeprefix("eval/"))
        assert source.paired(there, "dev")
    assert (there.id, there.model) == (f"{place}/run/seed-0", f"{place}/run/seed-0/model")
    assert (there.params["task"], there.tags["stage"]) == ("classification", "finetune")
    assert there.folder is not None
    assert not Path(there.folder).exists()
    compare(replace(comparing, output_dir=str(tmp_path / "compared")))
    assert f"next: pmlm predict --model {place}/run/seed-0/model " in told(capsys)
    with pytest.raises(ConfigError, match=r"there is nothing at .*/nowhere"):
        FolderSource(CompareConfig(folders=[f"{place}/nowhere"]))
    finetune(config)
    assert "seed 0 is finished: it was trained and scored before" in told(capsys)


def test_a_store_does_not_choose_where_what_is_read_of_it_lies(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    hostile = ("../../../out/run.json", "a?endpoint_override=127.0.0.1:9&scheme=http/run.json", "//tmp/run.json")
    for name in ("run/run.json", "run/model/run.json", "corpus.jsonl", *hostile):
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=f"hostile/{name}", Body=b"{}")
    found = fetch(f"{bucket}/hostile", tmp_path / "in" / "a" / "folder")
    made = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert made == ["in/a/folder/hostile/run/run.json"]
    assert found.models == {found.top / "run" / "model"}
    assert "3 files passed over" in told(capsys)


@pytest.mark.slow
def test_a_sweep_is_found_there_and_compared(
    tmp_path: Path,
    sample_tokenizer_dir: str,
    bucket: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    place = f"{bucket}/{tmp_path.name}"
    made = make_sweep(tmp_path, sample_tokenizer_dir, num_samples=2, finalists=0, strategy="random")
    config = SweepConfig(**{**asdict(SweepConfig(**made)), "output_dir": place})
    config.validate()
    sweep(config)
    said = told(capsys)
    assert f"made result: {place}/sweep/reviews/result.json" in said
    winner = json.loads(storage.read_bytes(f"{place}/sweep/reviews/result.json"))["winner"]["trial"]
    comparing = CompareConfig(folders=[f"{place}/sweep"], sweep=["sweep"])
    there = runs_of(comparing)
    assert [run.stage for run in there] == ["sweep", "sweep-trial", "sweep-trial"]
    (best,) = [run for run in there if winner in (run.model or "")]
    trials = f"{place}/sweep/reviews/trials"
    assert runs_of(replace(comparing, folders=[trials])) == there[1:]
    assert runs_of(replace(comparing, folders=[f"{trials}/{winner}"])) == [best]
    model = f"{trials}/{winner}/model"
    assert best.model == model
    assert f"made winner's model: {model}" in said
    assert "model.safetensors" in storage.names_in(model)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="cannot be listed"):
        runs_of(comparing)
