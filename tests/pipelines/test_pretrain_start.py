"""Runs that start from a checkpoint are told apart by what it holds, wherever it lies and however that is spelt."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.setup import trainee
from pipelines.pretrain.start import digest_of, start_of
from pmlm_core.errors import CheckpointError, ConfigError
from pmlm_core.training import checkpoint
from pmlm_core.training.step import Precision
from tests.bucket_server import bucket_on_a_server, put_folder
from tests.pipelines.training_without_ray import config_for, plan_of, pretrain_here, train_here

SIZES = dict.fromkeys(("num_hidden_layers", "hidden_size", "num_attention_heads"))
OPTIONS: dict[str, Any] = {"max_steps": 2, "eval_rows": 0, "cpus_per_worker": 1}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory, blocks: str) -> list[Path]:
    """Two checkpoints of other weights. Read them only."""
    root = tmp_path_factory.mktemp("starts")
    for seed in (0, 1):
        train_here(config_for(blocks, root, **OPTIONS, seed=seed, run_name=str(seed)))
    return [checkpoint.folder_of(root / name / "checkpoints", 2) for name in ("0", "1")]


@pytest.fixture
def final(tmp_path: Path, starts: list[Path]) -> Path:
    """A link to the first."""
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "final").symlink_to(starts[0])
    return tmp_path / "o" / "final"


def lead_to(link: Path, folder: Path) -> None:
    link.unlink()
    link.symlink_to(folder)


def options_from(start: Path | str, blocks: str, output: Path, **more: Any) -> dict[str, Any]:
    return config_for(blocks, output, **OPTIONS, **SIZES, init_checkpoint=str(start), **more)


def test_a_run_is_named_by_the_weights_and_not_by_the_path(
    tmp_path: Path, blocks: str, starts: list[Path], final: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    paths = ("o/final", "./o/final", "o/../o/final/", str(final), str(starts[0]))
    plans = [plan_of(options_from(path, blocks, tmp_path / "out")) for path in paths]
    assert len({plan.run.name for plan in plans}) == 1
    # Workers go where the link leads now, not where it leads when they start.
    assert {plan.config.init_checkpoint for plan in plans} == {str(starts[0])}
    lead_to(final, starts[1])
    assert plan_of(options_from("o/final", blocks, tmp_path / "out")).run.name != plans[0].run.name


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_does_not_go_on_from_other_weights(tmp_path: Path, blocks: str, starts: list[Path], final: Path, begun):
    options = options_from(final, blocks, tmp_path / "out", run_name="run")
    if begun:
        pretrain_here(options)
    else:
        plan_of(options)  # and killed before its first checkpoint
    lead_to(final, starts[1])
    with pytest.raises(ConfigError, match=r"init_checkpoint .*o/final holds other weights than the run started from"):
        pretrain_here(options)
    record = json.loads((tmp_path / "out" / "run" / "run.json").read_text())
    assert record["start"]["path"] == str(starts[0])
    pretrain_here({**options, "init_checkpoint": record["start"]["path"]})


def test_a_link_that_has_moved_makes_a_new_run_and_says_so(
    tmp_path: Path, blocks: str, starts: list[Path], final: Path, capsys: pytest.CaptureFixture[str]
):
    options = options_from(final, blocks, tmp_path / "out")
    pretrain_here(options)
    (first,) = (path.parent.name for path in (tmp_path / "out").glob("*/run.json"))
    assert "held other weights" not in capsys.readouterr().out
    lead_to(final, starts[1])
    pretrain_here({**options, "learning_rate": 2e-3})
    assert "held other weights" not in capsys.readouterr().out, "it has other options besides"
    pretrain_here(options)
    out = " ".join(capsys.readouterr().out.split())
    assert f"{first} started from {final} with these options when it held other weights" in out
    assert "finished" not in out
    lead_to(final, starts[0])
    pretrain_here(options)
    assert f"run {first} is finished" in capsys.readouterr().out


def test_a_worker_that_finds_other_weights_begins_nothing(tmp_path: Path, blocks: str, starts: list[Path]):
    here = shutil.copytree(starts[0], tmp_path / "start")
    (here / checkpoint.MANIFEST).unlink()
    plan = plan_of(options_from(here, blocks, tmp_path / "out"))
    assert trainee(plan, Precision(torch.device("cpu"), "fp32"), None).step == 0
    shutil.copy(starts[1] / "model.safetensors", here)
    with pytest.raises(CheckpointError, match=r"start holds other weights than when the command began.*run_name"):
        trainee(plan, Precision(torch.device("cpu"), "fp32"), None)


def test_a_run_of_before_goes_on_where_its_path_is_the_same(tmp_path: Path, blocks: str, final: Path):
    options = options_from(final, blocks, tmp_path / "out", run_name="run")
    record = plan_of(options).run.record
    known = json.loads(record.read_text())
    known["deciding"]["init_checkpoint"] = str(final)
    record.write_text(json.dumps(known))
    plan_of(options)
    record.write_text(record.read_text().replace(str(final), str(tmp_path)))
    with pytest.raises(ConfigError, match="other weights"):
        plan_of(options)


def test_hashes_that_a_checkpoint_brings_stand_for_its_files(tmp_path: Path, starts: list[Path]):
    alone = shutil.copytree(starts[0], tmp_path / "alone")
    for name in checkpoint.TRAINING_FILES:
        (alone / name).unlink()
    assert digest_of(str(alone)) == digest_of(str(starts[0])) != digest_of(str(starts[1]))
    (alone / checkpoint.MANIFEST).write_text('{"files"')
    with pytest.raises(CheckpointError, match=r"is damaged: checkpoint\.json cannot be read.*good copy"):
        digest_of(str(alone))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with bucket_on_a_server("starts") as uri:
        yield uri


@pytest.mark.parametrize("with_manifest", [True, False])
def test_in_a_store_too(tmp_path: Path, starts: list[Path], bucket: str, monkeypatch, with_manifest: bool):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    home, digests = f"{bucket}/{tmp_path.name}", []
    for number, start in enumerate(starts):
        here = shutil.copytree(start, tmp_path / str(number))
        if not with_manifest:
            (here / checkpoint.MANIFEST).unlink()
            time.sleep(1.1 * number)  # stores tell the time in seconds
        assert os.path.getsize(here / "model.safetensors") == os.path.getsize(starts[0] / "model.safetensors")
        put_folder(here, home)
        found = [start_of(PretrainConfig("", "", init_checkpoint=spelt)) for spelt in (home, f"{home}/", str(start))]
        assert len({each.sha256 for each in found if each is not None}) == 1
        digests.append(found[0] and found[0].sha256)
    assert digests[0] != digests[1]
    assert (tmp_path / "cache").exists() != with_manifest, "where there is a manifest no weights are fetched"
