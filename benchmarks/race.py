"""Contestants taking turns: each round runs every one once, so that a busy moment of the machine hits them alike."""

import time
from collections.abc import Callable, Mapping


def race(
    contestants: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Least seconds of each, by default of processor time, which other programs disturb less than wall time.

    Warm them up beforehand where the first run is not like the others.
    """
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, work in contestants.items():
            begun = clock()
            work()
            best[name] = min(best[name], clock() - begun)
    return best
