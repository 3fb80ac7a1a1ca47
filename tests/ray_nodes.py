"""A Ray cluster of several nodes on this machine, for tests that give it nodes and take them away."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ray._private.services import node_ip_address_from_perspective
from ray.cluster_utils import Cluster

from tests.processes import below, send

RAY = Path(sys.executable).parent / "ray"
_ADDRESS = node_ip_address_from_perspective()
_OTHERS = ("ray::IDLE", "ray::Dashboard", "ray::RuntimeEnv")


class Nodes(Cluster):
    """At the machine's outward address, where drivers look; else that of this process's own Ray, which is loopback."""

    def add_node(self, wait: bool = True, **arguments: Any) -> Any:
        return super().add_node(wait, node_ip_address=_ADDRESS, **arguments)


@contextmanager
def cluster_of(nodes: int) -> Iterator[Nodes]:
    """A head for the driver's calls and `nodes` nodes of one CPU each."""
    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()


def at_work(node: Any) -> list[int]:
    """Processes of a node that do a task or are an actor, by the titles that Ray gives them."""
    found = []
    for pid in below(node.all_processes["raylet"][0].process.pid):
        with suppress(OSError):  # it has ended
            title = (Path("/proc") / str(pid) / "cmdline").read_text()
            found += [pid] if title.startswith("ray::") and not title.startswith(_OTHERS) else []
    return found


class BlindNode:
    """A node that does not see a folder of this machine: it runs where another disk, empty, is mounted over it."""

    def __init__(self, cluster: Cluster, hidden: Path) -> None:
        started = f"{RAY} start --address={cluster.address} --num-cpus=1 --block"
        mounted, before = f"mount -t tmpfs tmpfs {hidden} && exec {started}", _alive(cluster)
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{mounted} --node-ip-address={_ADDRESS}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while _alive(cluster) <= before:
            assert self.process.poll() is None, "the node has ended"
            assert time.monotonic() < deadline, "the node did not come up"
            time.sleep(0.1)

    def has(self, pid: int) -> bool:
        """Whether a process runs on it."""
        return pid in below(self.process.pid)

    def kill(self) -> None:
        """Without notice: the node and all that runs on it."""
        send(signal.SIGKILL, [self.process.pid, *below(self.process.pid)])
        self.process.wait()


def _alive(cluster: Cluster) -> int:
    return sum(node["Alive"] for node in cluster.global_state.node_table())


@contextmanager
def blind_nodes(cluster: Cluster, hidden: Path, count: int) -> Iterator[list[BlindNode]]:
    """Nodes of one CPU each that do not see `hidden`; skips where no disk may be mounted."""
    tried = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", str(hidden)]
    if not shutil.which("unshare") or subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("hiding a folder from a node needs root, on Linux")
    nodes: list[BlindNode] = []
    try:
        nodes += (BlindNode(cluster, hidden) for _ in range(count))
        yield nodes
    finally:
        for node in nodes:
            node.kill()
