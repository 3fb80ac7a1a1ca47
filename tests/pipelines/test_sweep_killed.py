"""A sweep ended in the middle, by `kill -9` or SIGTERM, and the same command again: nothing is lost or done twice."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sweeping_data import make_sweep

from pipelines.sweep.config import SweepConfig
from tests.processes import end

_PROGRAM = """
import json, sys
from pipelines.leaving import Terminated, heed_sigterm
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.run import run
config = SweepConfig(**json.loads(sys.argv[1]))
config.validate()
heed_sigterm()
try:
    run(config)
except Terminated:
    sys.exit(143)
"""


def start(options: dict, log: Path) -> subprocess.Popen:
    with log.open("a") as out:
        command = [sys.executable, "-c", _PROGRAM, json.dumps(options)]
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_on_and_repeats_no_finished_trial(tmp_path: Path, sample_tokenizer_dir: str, how: signal.Signals):
    longer = {"num_train_epochs": 20}  # or all would be done before the end comes
    made = make_sweep(tmp_path, sample_tokenizer_dir, num_samples=4, finalists=0, stop_hopeless=False, options=longer)
    options = asdict(SweepConfig(**{**made, "strategy": "optuna", "max_concurrent_trials": 1}))
    trials, log = tmp_path / "out" / "sweep" / "reviews" / "trials", tmp_path / "log.txt"
    driver = start(options, log)
    deadline = time.monotonic() + 200
    while not list(trials.glob("*/scores.json")):
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    time.sleep(1.5)
    end(driver, how, lambda: log.read_text()[-3000:], seconds=120)
    assert not (trials.parent / "result.json").exists()
    finished = {path: path.read_bytes() for path in trials.glob("*/scores.json")}
    journals = {path.parent: (path.parent / "metrics.jsonl").read_bytes() for path in finished}

    again = start(options, log)
    assert again.wait(timeout=250) == 0, log.read_text()[-3000:]
    result = json.loads((trials.parent / "result.json").read_text())
    assert len(result["configurations"]) == 4
    for path, content in finished.items():
        if path.parent.name != result["winner"]["trial"]:  # the winner predicts the rest besides
            assert path.read_bytes() == content
        assert (path.parent / "metrics.jsonl").read_bytes().startswith(journals[path.parent])
    client = MlflowClient(options["tracking_uri"])
    experiment = client.get_experiment_by_name("pmlm-reviews")
    found = client.search_runs([experiment.experiment_id])
    (parent,) = [each for each in found if each.data.tags["stage"] == "sweep"]
    children = [each for each in found if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.status == "FINISHED"
    assert [each.info.status for each in children] == ["FINISHED"] * 4
    assert all("final/dev/accuracy" in each.data.metrics for each in children)
    steps = [len(client.get_metric_history(each.info.run_id, "eval/accuracy")) for each in children]
    assert steps == [20] * 4
