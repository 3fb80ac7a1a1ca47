"""All nodes of a Ray, each asked by a process of its own there."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.doctor.joining import leave
from pipelines.doctor.nodes import Answer, Node, Nodes
from pipelines.doctor.prober import Prober
from pipelines.tracking.redact import in_brief

_STARTS_S = 30.0  # a node's first process of ours loads Python, Ray and pyarrow, on a busy machine slowly

_UNFORESEEN = 2  # UNEXPECTED_TERMINATION of Ray's NodeDeathInfo: not ended by a person or by the autoscaler


class RayNodes(Nodes):
    """All nodes of the connected Ray, each with a process of ours that takes none of its CPUs."""

    through_ray = True

    def __init__(self, timeout: float) -> None:
        """Start a process on every node; whether it comes up shows at the first question."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.timeout = timeout
        known = ray.nodes()
        alive = [each for each in known if each["Alive"]]
        self.lost = lost_nodes(known)
        alive.sort(key=lambda each: ("node:__internal_head__" not in each["Resources"], each["NodeManagerAddress"]))
        hosts = [(each["NodeManagerHostname"], each["NodeManagerAddress"]) for each in alive]
        remote = ray.remote(num_cpus=0, max_restarts=0)(Prober)
        self.nodes = []
        self._actors: dict[str, Any] = {}
        for each, (host, address) in zip(alive, hosts, strict=True):
            several = hosts.count((host, address)) > 1
            label = f"{host} ({address})" + (f" {each['NodeID'][:6]}" if several else "")
            self.nodes.append(Node(label, address, each["Resources"]))
            pinned = NodeAffinitySchedulingStrategy(each["NodeID"], soft=False)
            self._actors[label] = remote.options(scheduling_strategy=pinned, max_concurrency=8).remote(in_ray=True)

    def ask(self, method: str, *common: Any, each: Mapping[str, tuple[Any, ...]] | None = None) -> dict[str, Answer]:
        """See `Nodes.ask`."""
        import ray

        asked = {
            label: getattr(self._actors[label], method).remote(*common, *(each[label] if each else ()))
            for label in self.labels
        }
        limit = max(self.timeout, _STARTS_S) if method == "report" else self.timeout
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=limit, fetch_local=True)
        return {label: self._collect(reference, limit) for label, reference in asked.items()}

    def _one(self, label: str, method: str, *arguments: Any) -> Answer:
        return self._collect(getattr(self._actors[label], method).remote(*arguments), self.timeout, wait=True)

    @staticmethod
    def _collect(reference: Any, limit: float, wait: bool = False) -> Answer:
        import ray

        try:
            return Answer(ray.get(reference, timeout=limit if wait else 0))
        except ray.exceptions.GetTimeoutError:
            return Answer(failure=f"no answer within {limit:.0f} s")
        except ray.exceptions.RayError as error:
            return Answer(failure=_cause(error))

    def close(self) -> None:
        """End our processes."""
        import ray

        for actor in self._actors.values():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)


def lost_nodes(known: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Nodes that went unforeseen and have not come back, with what Ray says about it.

    Args:
        known: as `ray.nodes()` gives them.
    """
    back = {each["NodeManagerAddress"] for each in known if each["Alive"]}
    return {
        f"{each['NodeManagerHostname']} ({each['NodeManagerAddress']})": str(each.get("DeathReasonMessage") or "")
        for each in known
        if not each["Alive"] and each.get("DeathReason") == _UNFORESEEN and each["NodeManagerAddress"] not in back
    }


@contextlib.contextmanager
def nodes_of_ray(timeout: float, *, mine: bool) -> Iterator[RayNodes]:
    """The nodes of the connected Ray for the time of the block.

    Args:
        mine: leave (and, if it was started here, end) that Ray afterwards.
    """
    try:
        nodes = RayNodes(timeout)
        try:
            yield nodes
        finally:
            nodes.close()
    finally:
        if mine:
            leave(timeout)


def _cause(error: Exception) -> str:
    """The last line of what Ray says, where the cause stands."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return in_brief(lines[-1] if lines else type(error).__name__)
