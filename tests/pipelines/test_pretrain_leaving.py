"""SIGTERM to a worker, then to the command: a checkpoint at the next step, and nothing is done twice."""

import os
import signal
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.leaving import Request
from pipelines.pretrain import run as stage
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.loop import train
from pipelines.pretrain.plan import WorkPlan
from pipelines.run_folder import Events
from pipelines.team import Team
from pipelines.upload.background import Uploads
from tests.pipelines.pretrain_command import STEPS, Command
from tests.pipelines.training_without_ray import config_for, curve
from tests.processes import below, wait_until_gone


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_notice_to_a_worker_then_to_the_command_costs_not_a_step(tmp_path: Path, blocks: str, undisturbed: Path):
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    given = {"save_steps": 1000, "max_failures": 0, "tracking_uri": store}
    command = Command(blocks, tmp_path / "war", **given)
    command.wait_for_step(5)
    os.kill(command.worker_pid(1), signal.SIGTERM)
    command.wait_for_event("resumed", times=2)
    command.wait_for_step(max(curve(command.run.path)) + 5)
    os.kill(command.process.pid, signal.SIGTERM)
    assert command.process.wait(timeout=120) == 143, command.said()
    assert "terminated; the same command goes on" in command.said()
    assert "Traceback" not in command.said()
    assert not list(command.run.path.glob("leaving-*"))
    client = MlflowClient(store)
    (tracked,) = client.search_runs([client.get_experiment_by_name("pmlm-pretrain").experiment_id])
    assert tracked.info.status == "KILLED"

    again = Command(blocks, tmp_path / "war", **given)
    assert again.process.wait(timeout=400) == 0, again.said()
    assert curve(command.run.path) == curve(undisturbed)
    events, _ = Events(command.run).read()
    left = [event["text"].rpartition(" ")[2] for event in events if event["kind"] == "leaving"]
    resumed = [event for event in events if event["kind"] == "resumed"]
    assert [str(event["step"]) for event in resumed] == ["0", *left]
    assert len(left) == 2
    assert 5 <= resumed[1]["step"] < resumed[2]["step"] < STEPS
    assert not any("done again" in event["text"] for event in resumed)
    assert client.get_run(tracked.info.run_id).info.status == "FINISHED"
    sent = client.get_metric_history(tracked.info.run_id, "train/loss")
    assert sorted(metric.step for metric in sent) == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigterm_to_all_processes_of_the_machine_ends_soon_and_the_same_command_goes_on(
    tmp_path: Path, blocks: str, undisturbed: Path
):
    command = Command(blocks, tmp_path / "war")
    command.wait_for_step(15)
    every = below(command.process.pid)  # Ray's too: a batch system at the end of the time
    for pid in (command.process.pid, *every):
        os.kill(pid, signal.SIGTERM)
    assert command.process.wait(timeout=50) == 143, command.said()
    assert "Traceback" not in command.said()
    wait_until_gone(every)
    again = Command(blocks, tmp_path / "war")
    assert again.process.wait(timeout=400) == 0, again.said()
    assert curve(command.run.path) == curve(undisturbed)


def test_a_request_is_heard_and_answered(tmp_path: Path):
    command, worker = Request(tmp_path / "leaving"), Request(tmp_path / "leaving")
    command.prepare()
    assert not command.has_begun()
    worker.tell_begun()
    assert command.has_begun()
    assert not worker.is_asked()
    command.ask()
    worker = Request(tmp_path / "leaving")
    assert worker.is_asked()
    assert not command.has_left()
    worker.tell_left()
    assert command.has_left()
    worker.tell_begun()  # by workers that Ray has put in their place
    assert not command.has_left()
    worker.tell_left()
    command.prepare()  # the next start of the workers
    assert not command.has_left()
    assert not command.has_begun()
    command.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("signals_in_training", [0, 1, 2])
def test_a_signal_while_the_store_is_waited_for_still_ends_the_run_in_mlflow(
    tmp_path: Path, blocks: str, monkeypatch: pytest.MonkeyPatch, signals_in_training: int
):
    waited = []

    def fit(plan: WorkPlan) -> None:
        (plan.run.path / "ray").mkdir()
        if not signals_in_training:
            train(plan, Team())
        try:
            if signals_in_training:
                raise KeyboardInterrupt
        finally:
            if signals_in_training == 2:
                raise KeyboardInterrupt

    def close(uploads: Uploads, leaving: bool = False) -> bool:
        waited.append(leaving)
        raise KeyboardInterrupt

    def wake(uploads: Uploads) -> None:
        begun.add(uploads)
        really_wake(uploads)

    begun, really_wake, really_close = set[Uploads](), Uploads.wake, Uploads.close
    monkeypatch.setattr(Uploads, "wake", wake)
    monkeypatch.setattr(stage, "_fit", fit)
    monkeypatch.setattr(Uploads, "close", close)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    given = {"max_steps": 2, "eval_rows": 0, "run_name": "run", "cpus_per_worker": 1}
    options = config_for(blocks, tmp_path / "out", **given, tracking_uri=store, upload_dir=str(tmp_path / "there"))
    with pytest.raises(KeyboardInterrupt):
        stage.run(PretrainConfig(**options))
    client = MlflowClient(store)
    (tracked,) = client.search_runs([client.get_experiment_by_name("pmlm-pretrain").experiment_id])
    assert tracked.info.status == ("KILLED" if signals_in_training else "FINISHED")
    assert waited == {0: [False], 1: [True], 2: []}[signals_in_training], "who signals twice waits for nothing"
    for uploads in begun:
        really_close(uploads)
    assert not (tmp_path / "out" / "run" / "ray").exists()
    assert "pmlm-progress" not in {thread.name for thread in threading.enumerate()}
