"""What can be said from the scores of the seeds alone, and what several tests at once are worth."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan


@dataclass(frozen=True)
class Welch:
    """Welch's t test: `p` is two-sided, `low` and `high` bound 95 % of the difference of the means."""

    p: float
    low: float
    high: float


def welch(first: Sequence[float], second: Sequence[float]) -> Welch | None:
    """Compare the means of two samples of unequal spread; None where a sample has no spread to judge by.

    Unlike a paired test over examples it asks what other seeds would give.
    """
    if len(first) < 2 or len(second) < 2 or len({*first}) + len({*second}) == 2:
        return None
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one of them may have no spread
        found = ttest_ind(list(first), list(second), equal_var=False)
    bounds = found.confidence_interval(0.95)
    return None if isnan(found.pvalue) else Welch(float(found.pvalue), float(bounds.low), float(bounds.high))


def over_seeds(first: Sequence[float], second: Sequence[float]) -> float | None:
    """p of the difference were it due to seeds alone: Welch's t, or of one run against several Student's; or None.

    Of a single run it is asked whether it could be one more of the others (Crawford and Howell 1998).
    """
    found = welch(first, second)
    if found is not None:
        return found.p
    several = max(first, second, key=len)
    if min(len(first), len(second)) != 1 or len({*several}) < 2:
        return None
    from scipy.stats import ttest_ind

    return float(ttest_ind(list(first), list(second)).pvalue)


def holm(ps: Sequence[float], tests: int = 0) -> list[float]:
    """Holm's (1979) adjusted p of several tests: below 0.05, each holds with the chance of any error at most 5 %.

    Args:
        tests: of which these are the ones that were looked at, if there are more. None of them comes out lower than it
            would among all, since there each has at least as many smaller ones before it.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    >>> [round(p, 6) for p in holm([0.01, 0.04], tests=3)]
    [0.03, 0.08]
    """
    tests = max(tests, len(ps))
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (tests - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted
