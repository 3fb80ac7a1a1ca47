"""How many trials run at a time, asked anew before each: nodes come and go while a sweep runs.

A trial of one worker asks Tune for its CPUs, and Tune starts as many as there is room for. A trial of several asks for
next to nothing; its workers get their CPUs from Ray Train, in a placement group: all at once or none, so no two trials
wait for what the other holds. Without a limit they would all start at once, though, and only wait, on their own clock.
Benchmarks of one sweep share the room, those that are still at work.
A price: nothing waits that an autoscaler would see, so of trials of several workers it adds nodes for the first alone.
"""

from collections.abc import Iterable
from typing import Any

from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

from pipelines.sweep.config import SweepConfig

_AT_WORK: set[str] = set()
"""Benchmarks of this process whose trials share the nodes; searches, which ask, are pickled with Tune's state."""


def share(benchmarks: Iterable[str]) -> None:
    """These share the nodes from now on, until they `leave`."""
    _AT_WORK.clear()
    _AT_WORK.update(benchmarks)


def leave(benchmark: str) -> None:
    """The benchmark has ended: its share is for the others."""
    _AT_WORK.discard(benchmark)


def at_a_time(config: SweepConfig) -> int:
    """Trials at a time of each benchmark on the nodes that there are now; 0 for as many as Tune finds room for."""
    import ray

    if config.num_workers == 1:
        return config.max_concurrent_trials or 0
    have = ray.cluster_resources()
    fit_in = int(have.get("CPU", 1) // (config.num_workers * config.cpus_per_trial))
    if config.gpus_per_trial:
        fit_in = min(fit_in, int(have.get("GPU", 0) // (config.num_workers * config.gpus_per_trial)))
    each = max(1, fit_in // max(1, len(_AT_WORK)))
    return min(each, config.max_concurrent_trials or each)


class InOrder(BasicVariantGenerator):
    """Points of a grid, or drawn by the sweep's seed. It does not heed the limit that Tune is told, but its own."""

    def __init__(self, config: SweepConfig) -> None:
        super().__init__(random_state=config.seed)
        self._config = config

    def next_trial(self) -> Any:
        self.max_concurrent = at_a_time(self._config)
        return super().next_trial()


class Limited(ConcurrencyLimiter):
    """A searcher's proposals, no more at a time than there is room for; only where there is a limit."""

    def __init__(self, searcher: Any, config: SweepConfig) -> None:
        super().__init__(searcher, max_concurrent=at_a_time(config))
        self._config = config

    def suggest(self, trial_id: str) -> Any:
        self.max_concurrent = at_a_time(self._config)
        return super().suggest(trial_id)
