"""Nodes that are drained, stopped and lost while training runs on them: the weights are those of a run in peace."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from pipelines.run_folder import Events
from tests.pipelines.pretrain_command import STEPS, Command
from tests.pipelines.training_without_ray import curve
from tests.processes import above, send
from tests.ray_nodes import cluster_of

RAY = Path(sys.executable).parent / "ray"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with cluster_of(2) as made:
        yield made


def node_of(cluster: Cluster, pid: int):
    """The node on which a process runs."""
    parents = set(above(pid))
    (found,) = [
        node for node in cluster.worker_nodes if parents & {each.process.pid for each in node.all_processes["raylet"]}
    ]
    return found


def weights(run: Path) -> str:
    return hashlib.sha256((run / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_lost_without_notice_leaves_no_trace(tmp_path: Path, blocks: str, undisturbed: Path, cluster: Cluster):
    command = Command(blocks, tmp_path / "out", {"RAY_ADDRESS": cluster.address}, max_failures=1)
    command.wait_for_step(11)
    command.wait_for_event("checkpoint")  # of step 10, which is written meanwhile
    cluster.remove_node(node_of(cluster, command.worker_pid(0)), allow_graceful=False)
    cluster.add_node(num_cpus=1)
    assert command.process.wait(timeout=400) == 0, command.said()
    first, again = [event for event in Events(command.run).read()[0] if event["kind"] == "resumed"]
    assert first["step"] == 0
    assert 10 <= again["step"] < STEPS
    assert curve(command.run.path) == curve(undisturbed)
    assert weights(command.run.path) == weights(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_taken_after_notice_leaves_no_trace(tmp_path: Path, blocks: str, undisturbed: Path, cluster: Cluster):
    command = Command(blocks, tmp_path / "out", {"RAY_ADDRESS": cluster.address}, max_failures=0)
    command.wait_for_step(11)
    command.wait_for_event("checkpoint")  # of step 10, which is written meanwhile
    pids = [command.worker_pid(rank) for rank in (0, 1)]
    send(signal.SIGSTOP, pids)
    drained = node_of(cluster, pids[1])
    drain(cluster, drained)
    cluster.add_node(num_cpus=1)
    while not any(event["kind"] == "leaving" for event in Events(command.run).read()[0]):
        assert command.process.poll() is None, command.said()
        time.sleep(0.6)  # slow workers: tiny ones would be done before the news of a drained node is with them
        send(signal.SIGCONT, pids)
        time.sleep(0.05)
        send(signal.SIGSTOP, pids)
    send(signal.SIGCONT, pids)
    command.wait_for_event("resumed", times=2)
    assert drained is not node_of(cluster, command.worker_pid(0))
    assert drained is not node_of(cluster, command.worker_pid(1))
    assert command.process.wait(timeout=400) == 0, command.said()

    events, _ = Events(command.run).read()
    (left,) = [event["text"].rpartition(" ")[2] for event in events if event["kind"] == "leaving"]
    _, again = [event for event in events if event["kind"] == "resumed"]
    assert str(again["step"]) == left
    assert "done again" not in again["text"]
    assert curve(command.run.path) == curve(undisturbed)
    assert weights(command.run.path) == weights(undisturbed)


def drain(cluster: Cluster, node) -> None:
    """What a watcher of spot notices would say to Ray."""
    subprocess.run(
        [RAY, "drain-node", "--address", cluster.address, "--node-id", node.node_id, "--reason",
         "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "60"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_never_goes_on_is_replaced(tmp_path: Path, blocks: str, undisturbed: Path):
    command = Command(blocks, tmp_path / "out", {"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "15"})
    command.wait_for_step(15)
    os.kill(command.worker_pid(1), signal.SIGSTOP)
    assert command.process.wait(timeout=400) == 0, command.said()
    assert len([event for event in Events(command.run).read()[0] if event["kind"] == "resumed"]) == 2
    assert curve(command.run.path) == curve(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_head_ends_the_command_and_the_same_command_on_a_new_cluster_goes_on(
    tmp_path: Path, blocks: str, undisturbed: Path, cluster: Cluster
):
    command = Command(blocks, tmp_path / "out", {"RAY_ADDRESS": cluster.address})
    command.wait_for_step(15)
    workers = [command.worker_pid(rank) for rank in (0, 1)]
    send(signal.SIGSTOP, workers)  # or they would come to the end before they miss the head
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    assert command.process.wait(timeout=300) != 0
    send(signal.SIGKILL, workers)
    cluster.shutdown()

    with cluster_of(2) as other:
        again = Command(blocks, tmp_path / "out", {"RAY_ADDRESS": other.address})
        assert again.process.wait(timeout=400) == 0, again.said()
    resumed = [event["step"] for event in Events(command.run).read()[0] if event["kind"] == "resumed"]
    assert resumed[0] == 0
    assert 10 <= resumed[1] < STEPS
    assert curve(command.run.path) == curve(undisturbed)
    assert weights(command.run.path) == weights(undisturbed)
