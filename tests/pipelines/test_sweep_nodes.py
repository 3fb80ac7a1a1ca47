"""A sweep over several nodes, one of which is lost while a trial runs on it."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster
from sweeping_data import make_sweep
from test_sweep_killed import start

from pipelines.sweep.config import SweepConfig
from pipelines.sweep.trials import read_failure


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head for the driver's calls and two nodes of one CPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_node_loses_no_finished_trial(
    tmp_path: Path, sample_tokenizer_dir: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    doomed, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    made = make_sweep(tmp_path, sample_tokenizer_dir, num_samples=5, finalists=0, stop_hopeless=False)
    longer = {"num_train_epochs": 12, "max_train_rows": 60}
    options = asdict(SweepConfig(**{**made, "strategy": "random", "options": longer}))
    trials, log = tmp_path / "out" / "sweep" / "reviews" / "trials", tmp_path / "log.txt"
    driver = start(options, log)
    deadline = time.monotonic() + 300
    # One has ended, and each node is at work on another.
    while not (ended := len(list(trials.glob("*/scores.json")))) or len(list(trials.glob("*/run.json"))) < ended + 2:
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    finished = {path: path.read_bytes() for path in trials.glob("*/scores.json")}
    cluster.remove_node(doomed, allow_graceful=False)

    assert driver.wait(timeout=300) == 0, log.read_text()[-3000:]
    result = json.loads((trials.parent / "result.json").read_text())
    assert len(result["configurations"]) == 5, log.read_text()[-3000:]
    for path, content in finished.items():
        if path.parent.name != result["winner"]["trial"]:
            assert path.read_bytes() == content
    assert [read_failure(folder) for folder in trials.iterdir()] == [None] * 5
    client = MlflowClient(options["tracking_uri"])
    found = client.search_runs([client.get_experiment_by_name("pmlm-reviews").experiment_id])
    children = [each for each in found if each.data.tags["stage"] == "sweep-trial"]
    assert [each.data.tags["outcome"] for each in children] == ["finished"] * 5
    assert {len(client.get_metric_history(each.info.run_id, "eval/accuracy")) for each in children} == {12}
