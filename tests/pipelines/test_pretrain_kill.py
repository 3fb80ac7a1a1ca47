"""A slow worker, `kill -9` of one, then of everything: the same command goes on, with the curve of a run in peace."""

import os
import signal
import time
from pathlib import Path

import pytest

from pipelines.run_folder import Events
from tests.pipelines.pretrain_command import STEPS, Command
from tests.pipelines.training_without_ray import curve


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [1, 0])
def test_slow_worker_then_killed_worker_then_killed_driver_leave_no_trace_in_the_curve(
    rank, tmp_path: Path, blocks: str, undisturbed: Path
):
    expected = curve(undisturbed)
    assert len(expected) == STEPS

    command = Command(blocks, tmp_path / "war")
    command.wait_for_step(3)
    os.kill(command.worker_pid(1), signal.SIGSTOP)
    time.sleep(1)  # for the step that it was in
    reached = max(curve(command.run.path))
    time.sleep(3)
    assert max(curve(command.run.path)) == reached < 15
    os.kill(command.worker_pid(1), signal.SIGCONT)
    command.wait_for_step(15)
    assert [event["kind"] for event in Events(command.run).read()[0]].count("resumed") == 1
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
def test_ctrl_c_ends_with_a_sentence_and_the_same_command_goes_on(tmp_path: Path, blocks: str):
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
