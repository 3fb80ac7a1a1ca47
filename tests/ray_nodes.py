"""A Ray cluster of several nodes on this machine, for tests that take nodes away from it."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.cluster_utils import Cluster


@contextmanager
def cluster_of(nodes: int) -> Iterator[Cluster]:
    """A head for the driver's calls and `nodes` nodes of one CPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()
