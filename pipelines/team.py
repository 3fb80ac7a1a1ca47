"""A worker's place among the others."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist


def _ignore(_: Mapping[str, float]) -> None:
    """No one to report to."""


def _never() -> bool:
    return False


def _nothing() -> None:
    """Everything is where it belongs as soon as it is written."""


@dataclass(frozen=True)
class Team:
    """This worker, among `world` workers.

    Attributes:
        report: tells Ray of checkpoints and evaluations (every rank calls it).
        told: whether this worker has heard that all have to leave; costs next to nothing.
        draining: whether a worker's node is about to be taken away, the same on every rank (every rank calls it).
        flush: hands over to the driver what this worker has written for it elsewhere: figures, events.
    """

    rank: int = 0
    world: int = 1
    report: Callable[[Mapping[str, float]], None] = _ignore
    told: Callable[[], bool] = _never
    draining: Callable[[], bool] = _never
    flush: Callable[[], None] = _nothing

    @property
    def leads(self) -> bool:
        """Whether this worker writes journal and checkpoints."""
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """The value that rank 0 gives, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures that JSON can hold."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}
