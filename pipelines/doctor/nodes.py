"""Whom to ask: here this machine alone. Every question has a time limit and ends in an answer."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines import cluster
from pipelines.doctor.prober import Prober
from pipelines.tracking.patience import Attempt


@dataclass(frozen=True)
class Answer:
    """What a node said, or why it said nothing."""

    value: Any = None
    failure: str | None = None


@dataclass(frozen=True)
class Node:
    """A node by the name that findings use; `resources` are what Ray counts there."""

    label: str
    address: str
    resources: Mapping[str, float] = field(default_factory=dict)


class Nodes:
    """This machine alone, without Ray; and the face of `RayNodes`."""

    through_ray = False

    def __init__(self, timeout: float) -> None:
        """Ask later; `timeout` is in seconds, for each question."""
        self.timeout = timeout
        self.lost: Mapping[str, str] = {}
        self.nodes: Sequence[Node] = (Node("this machine", "127.0.0.1", {"CPU": cluster.available_cpus()}),)
        self._probers = {"this machine": Prober()}

    @property
    def labels(self) -> list[str]:
        """Names of those that have answered so far."""
        return [node.label for node in self.nodes]

    def ask(self, method: str, *common: Any, each: Mapping[str, tuple[Any, ...]] | None = None) -> dict[str, Answer]:
        """Ask all nodes at the same time.

        Args:
            method: of `Prober`.
            each: arguments by node, after the common ones.
        """
        given = {label: (*common, *(each[label] if each else ())) for label in self.labels}
        return {label: self._one(label, method, *arguments) for label, arguments in given.items()}

    def drop(self, labels: Sequence[str]) -> None:
        """Ask these no more: they have not answered once, and would cost the time limit each time."""
        self.nodes = [node for node in self.nodes if node.label not in labels]

    def offset(self, label: str) -> tuple[float, float] | None:
        """How far the node's clock is ahead of this one, and the time the question took; None without an answer."""
        best: tuple[float, float] | None = None
        for _ in range(3):
            start = time.time()
            said = self._one(label, "now")
            took = time.time() - start
            if said.failure is not None:
                return best
            if best is None or took < best[1]:
                best = (said.value - start - took / 2, took)
        return best

    def _one(self, label: str, method: str, *arguments: Any) -> Answer:
        attempt = Attempt(lambda: getattr(self._probers[label], method)(*arguments), self.timeout, "doctor")
        return Answer(attempt.result, attempt.failure)
