"""`pmlm predict` over Ray, killed, and in an object store: the files are those of one process that nobody touched."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from predicting_data import files, make_finetuned, predict, write_texts

from pipelines.predict.config import PredictConfig
from pipelines.predict.run import run
from pipelines.ray_map import over_ray
from pmlm_core import storage
from pmlm_core.errors import DataError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> str:
    return make_finetuned(tmp_path_factory.mktemp("model") / "model", sample_tokenizer_dir, "generation")


@pytest.mark.usefixtures("ray_session")
def test_two_workers_write_the_bytes_of_one(tmp_path: Path, model: str, sample_texts: list[str]):
    for name in "ab":
        write_texts(tmp_path / "in" / f"{name}.jsonl", [text[:80] for text in sample_texts[:40]])
    with (tmp_path / "in" / "b.jsonl").open("a") as file:
        file.write("not json\n")
    options = {"piece_rows": 9, "do_sample": True, "num_beams": 1}
    one = predict(model, [tmp_path / "in"], tmp_path / "one", num_workers=1, **options)
    two = predict(model, [tmp_path / "in"], tmp_path / "two", num_workers=2, **options)
    assert len(one) == 80
    assert one == two
    assert files(tmp_path / "one") == files(tmp_path / "two")
    with pytest.raises(DataError, match=r"b\.jsonl, row 41: not JSON"):
        predict(model, [tmp_path / "in"], tmp_path / "strict", num_workers=2, strict=True, **options)


@pytest.mark.usefixtures("ray_session")
def test_a_class_is_made_once_in_each_worker():
    class Adder:  # in here it travels to the worker by value
        def __init__(self, start: int) -> None:
            self.start, self.calls = start, 0

        def __call__(self, item: dict[str, int]) -> dict[str, int]:
            self.calls += 1
            return {"sum": self.start + item["number"], "calls": self.calls}

    items = [{"number": number} for number in range(4)]
    rows = list(over_ray(Adder, items, num_workers=1, what="add", made_with={"start": 10}))
    assert sorted(row["sum"] for row in rows) == [10, 11, 12, 13]
    assert sorted(row["calls"] for row in rows) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_ended_half_way_and_the_same_command_again(
    how: signal.Signals, tmp_path: Path, model: str, sample_texts: list[str]
):
    path = write_texts(tmp_path / "in.jsonl", [text[:100] for text in sample_texts])
    options = ["--piece_rows=8", "--num_workers=1", "--precision=fp32", "--num_beams=8", "--batch_size=1"]
    log = tmp_path / "log.txt"

    def start(out: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "pipelines.cli", "predict", "--model", model, "--output_dir", str(out)]
        with open(log, "wb") as file:
            return subprocess.Popen([*command, *options, "--inputs", str(path)], stdout=file, stderr=subprocess.STDOUT)

    killed, ledger = start(tmp_path / "killed"), tmp_path / "killed" / "ledger"
    while killed.poll() is None and not (ledger.exists() and len(list(ledger.glob("part-*"))) >= 3):
        time.sleep(0.005)
    assert killed.poll() is None, log.read_text()
    os.kill(killed.pid, how)
    assert killed.wait() == (-how if how == signal.SIGKILL else 143), log.read_text()
    assert not (tmp_path / "killed" / "summary.json").exists()
    given = {"piece_rows": 8, "num_beams": 8, "batch_size": 1}
    again = predict(model, [path], tmp_path / "killed", **given)
    assert len(again) == len(sample_texts)
    assert predict(model, [path], tmp_path / "whole", **given) == again
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_object_stores(tmp_path: Path, model: str, sample_texts: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        store = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        store.create_bucket(Bucket="texts")
        path = write_texts(tmp_path / "a.jsonl", [text[:60] for text in sample_texts[:12]])
        store.upload_file(str(path), "texts", "in/a.jsonl")
        query = f"?endpoint_override={host}:{port}&scheme=http"
        here = predict(model, [path], tmp_path / "here", piece_rows=5)
        config = PredictConfig(
            model=model, inputs=[f"s3://texts/in/*.jsonl{query}"], output_dir=f"s3://texts/out{query}", piece_rows=5,
            num_workers=1, precision="fp32",
        )  # fmt: skip
        run(config)
        run(config)
        merged = storage.read_bytes(f"s3://texts/out/predictions.jsonl{query}").decode()
        assert merged.count("\n") == 12
        there = [line.split('"text": ')[1] for line in merged.splitlines()]
        local = (tmp_path / "here" / "predictions.jsonl").read_text().splitlines()
        assert there == [line.split('"text": ')[1] for line in local]
        assert len(here) == 12
    finally:
        server.stop()
