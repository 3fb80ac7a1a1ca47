"""A Ray cluster of several nodes on this machine, for tests that give it nodes and take them away."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray._private.services import node_ip_address_from_perspective
from ray.cluster_utils import Cluster

from tests.processes import below

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
