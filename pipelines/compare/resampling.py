"""Paired tests over the examples of one development set: bootstrap intervals and approximate randomization.

Sources: Efron and Tibshirani 1993, chapter 13 (percentile interval); Noreen 1989 and Yeh 2000 (randomization). A system
is the mean of its seeds: an example is drawn, or swapped between two systems, with the results of all seeds.
"""

from collections.abc import Iterator, Sequence
from math import lcm

import numpy as np
from numpy.typing import NDArray

from pmlm_core.tasks.scores.paired import Entry, figure

Array = NDArray[np.float64]

_AT_ONCE = 4_000_000  # places of examples in memory
_ENOUGH = 4_000  # resamples of a large development set, where `_WORK` allows no more
_WORK = 40_000_000
_MOST_WORK = {True: 400_000_000, False: 80_000_000}  # of one pair of systems; by whether the figure is a mean
_LEVEL = 0.95


def affordable(resamples: int, examples: int) -> int:
    """As many resamples as were asked for, or fewer of a large development set.

    >>> affordable(10_000, 277), affordable(10_000, 40_430)
    (10000, 4000)
    """
    return min(resamples, max(_ENOUGH, _WORK // examples))


def within_reach(resamples: int, first: Sequence[Entry], second: Sequence[Entry]) -> bool:
    """Whether `permutation_p` takes seconds, at most a minute or two, with so many resamples."""
    first, second = _compact(first), _compact(second)
    if _are_means(first, second):
        return resamples * len(_differing(first[0], second[0])[0]) <= _MOST_WORK[True]
    return resamples * _size(first[0]) <= _MOST_WORK[False]


def bootstrap(name: str, systems: Sequence[Sequence[Entry]], resamples: int, seed: int) -> Array:
    """The figure of every system in every resample: (systems, resamples).

    The resamples are the same for all systems, so that the differences between rows are paired.

    Args:
        name: of the figure.
        systems: for each, the entries of its seeds; all of the same examples in the same order.
    """
    systems = [_compact(system) for system in systems]
    examples = _size(systems[0][0])
    random = np.random.default_rng(seed)
    found = [
        [_mean(name, system, places) for system in systems]
        for places in (random.integers(examples, size=shape) for shape in _chunks(resamples, examples))
    ]
    return np.concatenate([np.stack(rows) for rows in found], axis=1)


def interval(differences: Array) -> tuple[float, float]:
    """The percentile interval that 95 % of the resampled differences lie in."""
    outside = (1 - _LEVEL) / 2
    low, high = np.quantile(differences, [outside, 1 - outside])
    return float(low), float(high)


def permutation_p(name: str, first: Sequence[Entry], second: Sequence[Entry], resamples: int, seed: int) -> float:
    """Two-sided p of the difference, were it of no account which system gave which results of an example.

    With different numbers of seeds each system's are repeated to a common number, which leaves the means as they are.
    The observed arrangement counts as one of the resamples, so p is never 0.
    """
    first, second = _compact(first), _compact(second)
    if _are_means(first, second):
        return _swapped_means_p(first[0], second[0], resamples, seed)
    common = lcm(len(first), len(second))
    pairs = zip(list(first) * (common // len(first)), list(second) * (common // len(second)), strict=True)
    joined = [_joined(one, other) for one, other in pairs]
    examples = _size(first[0])
    here = np.arange(examples)
    observed = _mean(name, joined, here[None]) - _mean(name, joined, here[None] + examples)
    random = np.random.default_rng(seed)
    as_large = 0
    for shape in _chunks(resamples, examples):
        moved = examples * random.integers(2, size=shape)
        difference = _mean(name, joined, here + moved) - _mean(name, joined, here + examples - moved)
        # Rounding must not tell equal differences apart.
        as_large += int(np.count_nonzero(np.abs(difference) >= np.abs(observed) - 1e-7))
    return (1 + as_large) / (1 + resamples)


def _swapped_means_p(first: Entry, second: Entry, resamples: int, seed: int) -> float:
    """The same where the figure is a mean over examples: of those that differ by as much, so many change sign."""
    sizes, counts = _differing(first, second)
    observed = abs(np.subtract(first["values"], second["values"]).mean())
    random = np.random.default_rng(seed)
    as_large = 0
    alone, together = sizes[counts == 1], sizes[counts > 1]
    several = counts[counts > 1]
    for rows, _ in _chunks(resamples, len(sizes)):
        signs = 2.0 * random.integers(2, size=(rows, len(alone)), dtype=np.int8) - 1
        sums = 2 * random.binomial(several, 0.5, (rows, len(several))) - several
        swapped = signs @ alone + sums @ together
        as_large += int(np.count_nonzero(np.abs(swapped) >= observed - 1e-7))
    return (1 + as_large) / (1 + resamples)


def _are_means(first: Sequence[Entry], second: Sequence[Entry]) -> bool:
    return first[0]["kind"] == second[0]["kind"] == "mean"


def _differing(first: Entry, second: Entry) -> tuple[Array, NDArray[np.int64]]:
    """By how much examples make the means differ, and how many do by each; rounded, for seeds may add up otherwise."""
    differences = np.abs(np.subtract(first["values"], second["values"])).round(9)
    sizes, counts = np.unique(differences[differences > 0], return_counts=True)
    return sizes / len(differences), counts


def _mean(name: str, seeds: Sequence[Entry], places: NDArray[np.int64]) -> Array:
    """Over seeds, of the figure of each row of places."""
    return np.mean([figure(name, entry, places) for entry in seeds], axis=0)


def _compact(seeds: Sequence[Entry]) -> Sequence[Entry]:
    """One entry for all seeds where the figure is a mean over examples: the mean over seeds of each example."""
    if any(entry["kind"] != "mean" for entry in seeds):
        return seeds
    return [{"kind": "mean", "values": np.mean([entry["values"] for entry in seeds], axis=0)}]


def _joined(one: Entry, other: Entry) -> Entry:
    """The examples of two entries, one after the other: an example of the second has its place plus their number."""
    return {part: value if part == "kind" else [*value, *other[part]] for part, value in one.items()}


def _size(entry: Entry) -> int:
    return next(len(value) for part, value in entry.items() if part != "kind")


def _chunks(resamples: int, examples: int) -> Iterator[tuple[int, int]]:
    """Shapes that make up (resamples, examples) and fit in memory."""
    rows = max(1, _AT_ONCE // max(1, examples))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start), examples
