"""The worker's loop without Ray: in this process, or in several joined by gloo; and what to compare of two runs."""

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
import torch.multiprocessing

from pipelines.pretrain import run as stage
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.loop import train
from pipelines.pretrain.plan import WorkPlan, as_before, identity, plan_for
from pipelines.pretrain.rundir import open_run
from pipelines.pretrain.start import start_of
from pipelines.team import Team
from pipelines.tracking.journal import Journal
from pmlm_core.corpus.manifest import Manifest

TIMED = ("tokens_per_second", "mfu", "data_wait_share")


def config_for(blocks: str, output: Path, **options: Any) -> dict[str, Any]:
    """Options of a very small run."""
    return {
        "data_dir": blocks,
        "output_dir": str(output),
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "batch_size": 8,
        "micro_batch_size": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "tracking_uri": "none",
        **options,
    }


def plan_of(options: dict[str, Any], attempt: str = "test") -> WorkPlan:
    config = PretrainConfig(**options)
    config.validate()
    manifest = Manifest.load(config.data_dir)
    start = start_of(config)
    run, _ = open_run(config, identity(manifest), start)
    return as_before(plan_for(config, run, manifest, attempt=attempt, threads=1, start=start))


def train_here(options: dict[str, Any], **team: Any) -> Path:
    """One worker, in this process; returns the run's folder."""
    plan = plan_of(options)
    train(plan, Team(**team))
    return plan.run.path


def pretrain_here(
    options: dict[str, Any], report: Callable[[Mapping[str, float]], None] = lambda figures: None
) -> Path:
    """`pmlm pretrain`, with its one worker in this process instead of Ray's; returns the run's folder."""
    config = PretrainConfig(**options)
    config.validate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_fit", lambda plan: train(plan, Team(report=report)))
        stage.run(config)
    return Path(options["output_dir"]) / "run"


def train_in_processes(options: dict[str, Any], workers: int) -> Path:
    """Several workers, each a process; returns the run's folder. An elastic run has as many of its num_workers."""
    plan = plan_of(options if "min_workers" in options else {**options, "num_workers": workers})
    with tempfile.TemporaryDirectory() as meeting:
        # A fork server imports torch once for all tests.
        multiprocessing.set_forkserver_preload(["pipelines.pretrain.loop"])
        torch.multiprocessing.start_processes(
            _worker, (workers, plan, f"file://{meeting}/store"), nprocs=workers, start_method="forkserver"
        )
    return plan.run.path


def _worker(rank: int, world: int, plan: WorkPlan, meeting: str) -> None:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    train(plan, Team(rank, world))
    dist.destroy_process_group()


def curve(run_path: Path, prefix: str = "train/") -> dict[int, dict[str, float]]:
    """Step -> every figure that does not depend on the clock; fails if a step is there twice."""
    found: dict[int, dict[str, float]] = {}
    for entry in Journal(run_path).entries():
        if not any(name.startswith(prefix) for name in entry.metrics):
            continue
        assert entry.step not in found, f"step {entry.step} is in the journal twice"
        found[entry.step] = {name: value for name, value in entry.metrics.items() if name not in TIMED}
    return found
