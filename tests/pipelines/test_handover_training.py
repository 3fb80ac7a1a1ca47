"""Nodes that do not see the command's disk: what they train is the same, and lies in the command's folder."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sweeping_data import make_sweep
from test_sweep_killed import start

from pipelines.run_folder import Events
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.trials import read_failure
from pmlm_core.training import checkpoint
from tests.pipelines.pretrain_command import STEPS, Command
from tests.pipelines.test_pretrain_nodes import weights
from tests.pipelines.training_without_ray import curve
from tests.processes import wait_until
from tests.ray_nodes import blind_nodes, cluster_of


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_that_see_nothing_of_the_run_and_lose_a_node_leave_no_trace(
    tmp_path: Path, blocks: str, undisturbed: Path
):
    here = tmp_path / "disk"
    shutil.copytree(blocks, here / "blocks")
    with cluster_of(0) as cluster, blind_nodes(cluster, here, 3) as nodes:
        environment = {"RAY_ADDRESS": cluster.address, "PMLM_CACHE": str(tmp_path / "cache")}
        command = Command(str(here / "blocks"), here / "out", environment, max_failures=1)
        command.wait_for_step(11)
        command.wait_for_event("checkpoint")  # of step 10, which is written meanwhile
        events, _ = Events(command.run).read()
        assert {event["rank"] for event in events if event["kind"] == "worker"} == {0, 1}
        at_work = command.worker_pid(0)
        next(node for node in nodes if node.has(at_work)).kill()
        assert command.process.wait(timeout=400) == 0, command.said()
    first, again = [event for event in Events(command.run).read()[0] if event["kind"] == "resumed"]
    assert first["step"] == 0
    assert 10 <= again["step"] < STEPS
    assert curve(command.run.path) == curve(undisturbed)
    assert curve(command.run.path, "eval/") == curve(undisturbed, "eval/")
    assert weights(command.run.path) == weights(undisturbed)
    kept = checkpoint.all_steps(command.run.checkpoints)
    assert [path.name for path in kept] == [path.name for path in checkpoint.all_steps(undisturbed / "checkpoints")]
    assert all(checkpoint.damage(path) is None for path in kept)
    assert not [path.name for path in command.run.checkpoints.iterdir() if path.name.startswith(".")]
    assert not list((tmp_path / "cache" / "away").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("workers", "samples", "finalists"), [(1, 4, 1), (2, 2, 0)])
def test_trials_that_see_nothing_of_the_sweep_and_lose_a_node_come_to_their_ends(
    tmp_path: Path,
    sample_tokenizer_dir: str,
    workers: int,
    samples: int,
    finalists: int,
    monkeypatch: pytest.MonkeyPatch,
):
    here = tmp_path / "disk"
    here.mkdir()
    made = make_sweep(here, sample_tokenizer_dir, num_samples=samples, finalists=finalists)
    made |= {"stop_hopeless": False, "num_workers": workers}
    options = asdict(SweepConfig(**{**made, "strategy": "random", "options": {"num_train_epochs": 6}}))
    trials, log = here / "out" / "sweep" / "reviews" / "trials", tmp_path / "log.txt"
    with cluster_of(0) as cluster, blind_nodes(cluster, here, 3) as nodes:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
        driver = start(options, log)
        # In the middle of a trial: it has a checkpoint.
        wait_until(lambda: list(trials.glob("*/checkpoints/step-*/checkpoint.json")), driver, log)
        nodes[0].kill()
        assert driver.wait(timeout=400) == 0, log.read_text()[-3000:]
    result = json.loads((trials.parent / "result.json").read_text())
    assert len(result["configurations"]) == samples, log.read_text()[-3000:]
    assert [read_failure(folder) for folder in trials.iterdir()] == [None] * (samples + finalists)
    won = trials / result["winner"]["trial"]
    assert len(result["winner"]["seeds"]) == 1 + finalists
    assert {path.name for path in (won / "predictions").iterdir()} >= {"predictions.dev.tsv", "predictions.test.tsv"}
    assert (won / "model" / "model.safetensors").is_file()
    client = MlflowClient(options["tracking_uri"])
    found = client.search_runs([client.get_experiment_by_name("pmlm-reviews").experiment_id])
    children = [each for each in found if each.data.tags["stage"] == "sweep-trial"]
    assert [each.data.tags["outcome"] for each in children] == ["finished"] * (samples + finalists)
    assert {len(client.get_metric_history(each.info.run_id, "eval/accuracy")) for each in children} == {6}
    assert not [path for path in trials.rglob(".*") if path.name != ".lock"]
    assert not list((tmp_path / "cache" / "away").glob("*"))
