"""A real S3 server that goes away in mid-training and comes back: reading waits for it, uploads catch up."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipelines.pretrain import loop
from pipelines.upload import checkpoints
from pmlm_core import storage
from pmlm_core.training import checkpoint
from tests.pipelines.test_pretrain_loop import OPTIONS
from tests.pipelines.training_without_ray import config_for, curve, pretrain_here, train_here


class Store:
    """A bucket whose server can be stopped and started again at the same address; what it holds stays."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, self._port = self._server.get_host_and_port()
        address = f"http://{host}:{self._port}"
        patch.setenv("AWS_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        name = f"store-{self._port}"  # a client is kept by the name of its bucket
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=name)
        self.uri = f"s3://{name}"

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = Store(monkeypatch)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory, blocks: str) -> Path:
    return train_here(config_for(blocks, tmp_path_factory.mktemp("peace"), **OPTIONS))


def test_uploads_catch_up_and_training_does_not_wait(tmp_path: Path, blocks: str, in_peace: Path, store: Store):
    after: dict[str, Any] = {5: store.stop, 20: store.start}
    run = pretrain_here(
        config_for(blocks, tmp_path / "out", **OPTIONS, cpus_per_worker=1, upload_dir=store.uri),
        report=lambda figures: after.pop(figures["step"], lambda: None)(),
    )
    assert not after
    assert curve(run) == curve(in_peace)
    there = checkpoints._whole(storage.join(store.uri, "run", "checkpoints"))
    assert sorted(there) == [f"step-{step:08d}" for step in (5, 10, 15, 20, 24)]
    for name, manifest in there.items():
        assert (run / "checkpoints" / name / checkpoint.MANIFEST).read_bytes() == manifest


@pytest.mark.parametrize("seconds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_reading_of_blocks_waits_for_the_store(
    seconds: int, tmp_path: Path, blocks: str, in_peace: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PMLM_STORE_SECONDS", raising=False)
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    there = f"{store.uri}/blocks"
    for file in Path(blocks).rglob("*"):
        if file.is_file():
            storage.copy_file(file, storage.join(there, *file.relative_to(blocks).parts))
    really = loop.CheckpointWriter

    def before_the_first_step(*arguments: Any, **named: Any) -> Any:  # manifest and tokenizer have been read, no rows
        store.stop()
        threading.Timer(seconds, store.start).start()
        return really(*arguments, **named)

    monkeypatch.setattr(loop, "CheckpointWriter", before_the_first_step)
    begun = time.monotonic()
    run = train_here(config_for(there, tmp_path / "out", **OPTIONS))
    assert time.monotonic() - begun > seconds
    assert curve(run) == curve(in_peace)
