"""A checkpoint of an object store, fetched once a machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_server import bucket_on_a_server, put_folder
from finetuning_data import make_checkpoint, options_for, write_reviews

from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import settle
from pipelines.model_here import local_copy
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with bucket_on_a_server("models") as name:
        yield name


@pytest.fixture
def remote(tmp_path: Path, bucket: str, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    make_checkpoint(tmp_path / "made", sample_tokenizer_dir)
    (tmp_path / "made" / "optimizer.safetensors").write_bytes(b"large")
    put_folder(tmp_path / "made", f"{bucket}/{tmp_path.name}")
    return f"{bucket}/{tmp_path.name}"


def test_it_is_fetched_once_without_what_only_training_needs(
    tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(local_copy(remote))
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "made" / "model.safetensors").read_bytes()
    assert not (folder / "optimizer.safetensors").exists()
    monkeypatch.setattr(storage, "fetch_file", lambda *_: pytest.fail("fetched again"))
    assert local_copy(remote) == str(folder)
    assert local_copy(str(tmp_path)) == str(tmp_path)


def test_fine_tuning_takes_it_and_remembers_where_it_lay(tmp_path: Path, remote: str):
    data = write_reviews(tmp_path / "data")
    there, _ = settle(FinetuneConfig(**options_for("classification", remote, data, tmp_path)))
    made, _ = settle(FinetuneConfig(**options_for("classification", str(tmp_path / "made"), data, tmp_path)))
    assert there.source.described()["path"] == remote
    assert there.source.here().path == there.source.path
    assert there.identity() == made.identity()


def test_nothing_there_and_a_damaged_one_are_said(tmp_path: Path, remote: str):
    with pytest.raises(ConfigError, match=r"there is no checkpoint"):
        local_copy("s3://models/elsewhere")
    storage.write_bytes(f"{remote}/checkpoint.json", b'{"files": {"model.safetensors": {"sha256": "0"}}}')
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not as it was written"):
        local_copy(remote)
