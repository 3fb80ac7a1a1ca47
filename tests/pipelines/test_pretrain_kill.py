"""`kill -9` of a worker, then of everything: the same command goes on, and the loss curve is that of a run in peace."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.run_folder import Events, RunDir
from pipelines.tracking.journal import Journal
from tests.pipelines.tiny_blocks import make_blocks
from tests.pipelines.training_without_ray import config_for, curve, train_in_processes

STEPS = 90
OPTIONS = {
    "max_steps": STEPS,
    "save_steps": 10,
    "eval_steps": 30,
    "eval_rows": 16,
    "logging_steps": 1,
    "num_workers": 2,
    "cpus_per_worker": 1,
    "hidden_dropout_prob": 0.1,
    "run_name": "run",
}


class Command:
    """A `pmlm pretrain` in a session of its own."""

    def __init__(self, blocks: str, output: Path) -> None:
        arguments = [f"--{name}={value}" for name, value in {**config_for(blocks, output, **OPTIONS)}.items()]
        self.run = RunDir(output / "run")
        self.log = output.with_suffix(".log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "pretrain", *arguments],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def wait_for_step(self, step: int, limit: float = 300) -> None:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"ended early:\n{self.said()}"
            if any(entry.step >= step for entry in Journal(self.run.path).entries()):
                return
            time.sleep(0.02)
        raise AssertionError(f"step {step} was not reached in {limit} s:\n{self.said()}")

    def worker_pid(self, rank: int) -> int:
        events, _ = Events(self.run).read()
        return [event["pid"] for event in events if event["kind"] == "worker" and event["rank"] == rank][-1]

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_killed_worker_then_killed_driver_leave_no_trace_in_the_curve(
    rank, tmp_path, sample_texts, sample_tokenizer_dir
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts, sample_tokenizer_dir)
    train_in_processes(config_for(blocks, tmp_path / "peace", **OPTIONS), workers=2)
    expected = curve(tmp_path / "peace" / "run")
    assert len(expected) == STEPS

    command = Command(blocks, tmp_path / "war")
    command.wait_for_step(15)
    os.kill(command.worker_pid(rank), signal.SIGKILL)
    command.wait_for_step(45)
    os.killpg(command.process.pid, signal.SIGKILL)
    assert command.process.wait() == -signal.SIGKILL
    assert len(curve(command.run.path)) < STEPS

    again = Command(blocks, tmp_path / "war")
    assert again.process.wait(timeout=400) == 0, again.said()
    assert "resumed from the checkpoint of step" in again.said()
    assert curve(command.run.path) == expected
    events, _ = Events(command.run).read()
    resumed_at = [event["step"] for event in events if event["kind"] == "resumed"]
    assert len(resumed_at) == 3
    assert 10 <= resumed_at[1] < resumed_at[2] < STEPS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_ends_with_a_sentence_and_the_same_command_goes_on(tmp_path, sample_texts, sample_tokenizer_dir):
    blocks = make_blocks(tmp_path / "blocks", sample_texts, sample_tokenizer_dir)
    command = Command(blocks, tmp_path / "out")
    command.wait_for_step(15)
    os.kill(command.process.pid, signal.SIGINT)
    assert command.process.wait(timeout=120) == 130
    assert "the same command goes on" in command.said()
    assert "Traceback" not in command.said()
    reached = max(curve(command.run.path))
    again = Command(blocks, tmp_path / "out")
    assert again.process.wait(timeout=400) == 0, again.said()
    assert max(curve(command.run.path)) == STEPS > reached
