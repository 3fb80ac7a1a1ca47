"""Contestants taking turns: each round runs every one once, so that a busy moment of the machine hits them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Samples = dict[str, list[float]]


def race(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    warm_up: bool = False,
) -> Samples:
    """Seconds of each in every round, by default of processor time: other programs disturb it less than wall time."""
    if warm_up:
        for work in contestants.values():
            work()
    samples: Samples = {name: [] for name in contestants}
    for turn in range(rounds):
        # To and fro, so that none always comes after the same neighbour.
        for name in list(contestants)[:: 1 if turn % 2 == 0 else -1]:
            begun = clock()
            contestants[name]()
            samples[name].append(clock() - begun)
    return samples


def medians(samples: Samples) -> dict[str, float]:
    """Seconds of each, the median of its rounds: what the ratios beside them are medians of, too."""
    return {name: statistics.median(seconds) for name, seconds in samples.items()}


@dataclass(frozen=True)
class Ratio:
    """How many times as long the peer takes: the median over the rounds, the least and the largest.

    >>> str(Ratio.of({"ours": [1.0, 2.0, 1.0], "peer": [1.5, 3.2, 1.4]}, "peer", "ours"))
    '1.50 (1.40-1.60)'
    """

    median: float
    least: float
    largest: float

    @classmethod
    def of(cls, samples: Samples, peer: str, ours: str) -> "Ratio":
        rounds = [theirs / own for theirs, own in zip(samples[peer], samples[ours], strict=True)]
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.largest:.2f})"
