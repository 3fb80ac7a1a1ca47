"""An elastic run over real nodes: with fewer workers than asked for, a node lost, a node come back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from pipelines.run_folder import Events, RunDir
from tests.pipelines.tiny_blocks import make_blocks
from tests.pipelines.training_without_ray import config_for, curve, train_here
from tests.processes import wait_until
from tests.ray_nodes import cluster_of

STEPS = 900
OPTIONS = {
    "max_steps": STEPS,
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "save_steps": 20,
    "eval_steps": 300,
    "eval_rows": 18,
    "logging_steps": 1,
    "learning_rate": 1e-4,
    "precision": "fp32",
    "num_workers": 4,
    "min_workers": 2,
    "resize_minutes": 0.05,
    "cpus_per_worker": 1,
    "run_name": "run",
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with cluster_of(3) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_node_and_one_that_comes_back_change_no_step(
    tmp_path: Path,
    sample_texts: list[str],
    sample_tokenizer_dir: str,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts, sample_tokenizer_dir)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    options = config_for(blocks, tmp_path / "out", **OPTIONS)
    arguments = [f"--{name}={value}" for name, value in options.items()]
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        driver = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "pretrain", *arguments], stdout=file, stderr=subprocess.STDOUT
        )
    run = RunDir(tmp_path / "out" / "run")

    def said(text: str) -> bool:
        return any(text in event["text"] for event in Events(run).read()[0])

    try:
        wait_until(lambda: said(str(run.checkpoints / "step-00000040")), driver, log)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        wait_until(lambda: said("num_workers was 3, is 2"), driver, log)
        cluster.add_node(num_cpus=1)
        wait_until(lambda: said("num_workers was 2, is 3"), driver, log)
        assert driver.wait(timeout=400) == 0, log.read_text()
    finally:
        driver.kill()

    monkeypatch.delenv("RAY_ADDRESS")
    alone = train_here(config_for(blocks, tmp_path / "alone", **OPTIONS))
    mine, its = curve(run.path), curve(alone)  # fails if a step is there twice
    assert list(mine) == list(its) == list(range(1, STEPS + 1))
    for step, figures in mine.items():
        assert figures["train/loss"] == pytest.approx(its[step]["train/loss"], rel=5e-3), step
    for step, figures in curve(run.path, "eval/").items():
        assert figures == pytest.approx(curve(alone, "eval/")[step], rel=5e-3)
