"""A Ray cluster of several nodes on this machine, for tests that take nodes away from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private.services import node_ip_address_from_perspective
from ray.cluster_utils import Cluster

_ADDRESS = node_ip_address_from_perspective()


class Nodes(Cluster):
    """At the machine's outward address, where drivers look; else that of this process's own Ray, which is loopback."""

    def add_node(self, wait: bool = True, **arguments: Any) -> Any:
        return super().add_node(wait, node_ip_address=_ADDRESS, **arguments)


@contextmanager
def cluster_of(nodes: int) -> Iterator[Nodes]:
    """A head for the driver's calls and `nodes` nodes of one CPU each."""
    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        made.add_node(num_cpus=1)
    try:
        yield made
    finally:
        made.shutdown()
