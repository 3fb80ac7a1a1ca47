"""Sharded training (`parallel: fsdp`) beside DDP and one worker, without Ray: the same run, whoever goes on with it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.run_folder import Events, RunDir
from pmlm_core.training import checkpoint
from tests.pipelines.training_without_ray import config_for, curve, train_here, train_in_processes

OPTIONS: dict[str, Any] = {
    "max_steps": 12,
    "save_steps": 4,
    "eval_steps": 6,
    "eval_rows": 18,
    "logging_steps": 1,
    "keep_checkpoints": 100,
    "max_grad_norm": 0.5,  # below every norm here, so that all updates are clipped
    "run_name": "run",
    "precision": "fp32",
    "num_workers": 4,
    "min_workers": 1,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, blocks) -> Path:
    return train_here(config_for(blocks, tmp_path_factory.mktemp("alone"), **OPTIONS))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, blocks) -> Path:
    options = config_for(blocks, tmp_path_factory.mktemp("sharded"), **OPTIONS, parallel="fsdp")
    return train_in_processes(options, workers=2)


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of a checkpoint."""
    folder = checkpoint.folder_of(run / "checkpoints", step)
    return load_file(folder / "model.safetensors") | load_file(folder / checkpoint.OPTIMIZER)


def assert_same_run(run: Path, other: Path) -> None:
    """Equal but for the order of sums."""
    for prefix in ("train/", "eval/"):
        mine, theirs = curve(run, prefix), curve(other, prefix)
        assert mine.keys() == theirs.keys()
        for step in mine:
            assert mine[step] == pytest.approx(theirs[step], rel=2e-3), step


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_compiled_parts_learn_the_same_sharded_or_not(parallel, tmp_path, blocks):
    """By the real compiler, on the CPU; dropout has other random numbers there, so there is none."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "parallel": parallel}
    runs = []
    for compiled in (True, False):
        options = config_for(blocks, tmp_path / str(compiled), **OPTIONS, **still, torch_compile=compiled)
        runs.append(train_in_processes(options, workers=2))
    assert_same_run(*runs)


def test_two_sharded_workers_learn_what_one_learns(sharded, alone):
    assert_same_run(sharded, alone)
    assert all(figures["grad_norm"] > 0.5 for figures in curve(alone).values())


def test_its_checkpoint_is_the_one_format(sharded, alone):
    folders = [checkpoint.folder_of(run / "checkpoints", 12) for run in (sharded, alone)]
    assert len({frozenset(path.name for path in folder.iterdir()) for folder in folders}) == 1
    assert all(checkpoint.damage(folder) is None for folder in folders)
    mine, its = (json.loads((folder / "config.json").read_text()) for folder in folders)
    assert mine == its
    mine, its = tensors(sharded, 12), tensors(alone, 12)
    assert mine.keys() == its.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, its[name], rtol=1e-2, atol=1e-4, msg=name)


def gone_back(run: Path, to: Path, blocks: str, **options: Any) -> dict[str, Any]:
    """Options that go on with a copy of `run` from its checkpoint of step 4."""
    shutil.copytree(run, to / "run")
    for folder in checkpoint.all_steps(to / "run" / "checkpoints")[1:]:
        shutil.rmtree(folder)
    return config_for(blocks, to, **{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("workers", "parallel"),
    [
        (3, "fsdp"),  # of four micro-batches two have one each, and one two
        pytest.param(3, "ddp", marks=pytest.mark.slow),
        pytest.param(4, "fsdp", marks=pytest.mark.slow),
    ],
)
def test_other_workers_go_on_where_two_sharded_ones_stopped(workers, parallel, tmp_path, blocks, sharded, alone):
    run = train_in_processes(gone_back(sharded, tmp_path, blocks, parallel=parallel), workers)
    assert_same_run(run, alone)
    assert f"num_workers was 2, is {workers}" in Events(RunDir(run)).path.read_text()


def test_one_worker_goes_on_where_two_sharded_ones_stopped(tmp_path, blocks, sharded, alone):
    run = train_here(gone_back(sharded, tmp_path, blocks))
    assert_same_run(run, alone)
    assert "parallel was fsdp, is ddp" in Events(RunDir(run)).path.read_text()


def test_two_sharded_workers_go_on_where_one_stopped_with_layers_computed_twice(tmp_path, blocks, sharded, alone):
    often = {"save_minutes": 1e-8}  # all workers have to save when the first finds that it is time
    options = gone_back(alone, tmp_path, blocks, parallel="fsdp", gradient_checkpointing=True, **often)
    run = train_in_processes(options, workers=2)
    assert_same_run(run, sharded)
    assert len(checkpoint.all_steps(run / "checkpoints")) > 3  # of steps 4, 8 and 12


@pytest.mark.slow
def test_the_same_workers_go_on_to_the_last_bit(tmp_path, blocks, sharded):
    for name, more in (("kept", {}), ("computed twice", {"gradient_checkpointing": True})):
        run = train_in_processes(gone_back(sharded, tmp_path / name, blocks, parallel="fsdp", **more), workers=2)
        assert curve(run) == curve(sharded)
        assert curve(run, "eval/") == curve(sharded, "eval/")
        mine, its = tensors(run, 12), tensors(sharded, 12)
        assert all(torch.equal(tensor, its[name]) for name, tensor in mine.items())


def test_layers_computed_twice_change_nothing(tmp_path, blocks, alone):
    run = train_here(config_for(blocks, tmp_path, **OPTIONS, gradient_checkpointing=True))
    assert curve(run) == curve(alone)
    assert curve(run, "eval/") == curve(alone, "eval/")


@pytest.mark.slow
def test_sharded_workers_in_bf16_are_near_those_of_ddp(tmp_path, blocks):
    runs = [
        train_in_processes(config_for(blocks, tmp_path / way, **{**OPTIONS, "precision": "bf16"}, parallel=way), 2)
        for way in ("ddp", "fsdp")
    ]
    mine, its = (curve(run) for run in runs)
    for step, figures in mine.items():
        assert figures["train/loss"] == pytest.approx(its[step]["train/loss"], rel=1e-3)
