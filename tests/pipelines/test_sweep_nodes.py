"""A sweep that is given nodes while it runs, and loses them while a trial runs on them."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster
from sweeping_data import make_sweep
from test_sweep_killed import start

from pipelines.run_folder import Events, RunDir
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.trials import read_failure
from tests.processes import send, wait_until
from tests.ray_nodes import at_work, cluster_of


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with cluster_of(1) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_node_is_given_trials_and_a_lost_one_loses_no_finished_trial(
    tmp_path: Path, sample_tokenizer_dir: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    made = make_sweep(tmp_path, sample_tokenizer_dir, num_samples=5, finalists=0, stop_hopeless=False)
    longer = {"num_train_epochs": 12, "max_train_rows": 60}
    options = asdict(SweepConfig(**{**made, "strategy": "random", "options": longer}))
    trials, log = tmp_path / "out" / "sweep" / "reviews" / "trials", tmp_path / "log.txt"
    driver = start(options, log)

    def begun() -> int:
        return len(list(trials.glob("*/run.json")))

    def ended() -> int:
        return len(list(trials.glob("*/scores.json")))

    wait_until(lambda: begun() == 1, driver, log)
    (first,) = cluster.worker_nodes
    trial = at_work(first)
    send(signal.SIGSTOP, trial)  # or it and all others would be done before the new node is up
    doomed = cluster.add_node(num_cpus=1)
    wait_until(lambda: begun() == 2, driver, log)
    assert at_work(doomed)
    send(signal.SIGCONT, trial)
    # One has ended, and each node is at work on another.
    wait_until(lambda: (done := ended()) > 0 and begun() >= done + 2, driver, log)
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trials_of_two_workers_are_more_at_a_time_on_more_nodes_and_fewer_on_fewer(
    tmp_path: Path, sample_tokenizer_dir: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    cluster.add_node(num_cpus=1)  # the second: one trial fits
    made = make_sweep(tmp_path, sample_tokenizer_dir, num_samples=4, finalists=0, stop_hopeless=False)
    options = asdict(SweepConfig(**{**made, "strategy": "random", "num_workers": 2, "tracking_uri": "none"}))
    trials, log = tmp_path / "out" / "sweep" / "reviews" / "trials", tmp_path / "log.txt"
    driver = start(options, log)

    def workers() -> dict[str, list[int]]:
        """Processes of each trial's workers, whether they still run or not."""
        told = {path.parent.name: Events(RunDir(path.parent)).read()[0] for path in trials.glob("*/run.json")}
        found = {name: [each["pid"] for each in events if each["kind"] == "worker"] for name, events in told.items()}
        return {name: pids for name, pids in found.items() if len(pids) >= 2}

    first = wait_until(workers, driver, log)
    ((one, pids),) = first.items()
    send(signal.SIGSTOP, pids)  # or all trials would be done before the new nodes are up
    time.sleep(5)
    assert len(list(trials.iterdir())) == 1, "a trial was started that does not fit"
    doomed = [cluster.add_node(num_cpus=1) for _ in range(2)]
    wait_until(lambda: len(workers()) == 2, driver, log)
    assert not (trials / one / "scores.json").exists()
    assert len(list(trials.iterdir())) == 2
    for node in doomed:
        cluster.remove_node(node, allow_graceful=False)
    send(signal.SIGCONT, pids)

    assert driver.wait(timeout=400) == 0, log.read_text()[-3000:]
    result = json.loads((trials.parent / "result.json").read_text())
    assert len(result["configurations"]) == 4, log.read_text()[-3000:]
    assert [read_failure(folder) for folder in trials.iterdir()] == [None] * 4
    assert sorted(len(each) for each in workers().values()) == [2, 2, 2, 4], "the lost trial was not started again"
