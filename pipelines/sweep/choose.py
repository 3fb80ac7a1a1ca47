"""Who goes on and who wins: configurations ranked by their mean over seeds, as the paper does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from pipelines.sweep.trials import Ended, Point


@dataclass(frozen=True)
class Configuration:
    """All ended trials of one configuration, by their seeds."""

    trials: tuple[Ended, ...]

    @property
    def digest(self) -> str:
        return self.trials[0].point.configuration

    @property
    def params(self) -> dict[str, object]:
        return self.trials[0].point.params

    @property
    def scores(self) -> list[float]:
        return [trial.score for trial in self.trials]

    @property
    def mean(self) -> float:
        return mean(self.scores)

    @property
    def median(self) -> float:
        return median(self.scores)

    @property
    def stdev(self) -> float:
        """Of a sample; 0 for one seed."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0

    @property
    def best(self) -> Ended:
        """The trial of the best seed; of equal ones that of the first."""
        return max(self.trials, key=lambda trial: (trial.score, -trial.point.seed))


def ranked(ended: Iterable[Ended]) -> list[Configuration]:
    """Configurations, best mean first; of equal ones the cheaper."""
    groups: dict[str, list[Ended]] = {}
    for trial in ended:
        groups.setdefault(trial.point.configuration, []).append(trial)
    found = [Configuration(tuple(sorted(trials, key=lambda trial: trial.point.seed))) for trials in groups.values()]
    return sorted(found, key=lambda one: (-one.mean, mean(trial.seconds for trial in one.trials), one.digest))


def whole(ended: Iterable[Ended], seeds: Sequence[int]) -> list[Configuration]:
    """Those with all of these seeds, best first; where none has them, as some failed, those with the most: a mean of
    few is luck."""
    found = ranked(ended)
    counts = [sum(trial.point.seed in seeds for trial in one.trials) for one in found]
    return [one for one, count in zip(found, counts, strict=True) if count == max(counts)]


def leaders(ended: Iterable[Ended], finalists: int, searched_with: Sequence[int]) -> list[Configuration]:
    """The best configurations of a search, one at least.

    Args:
        searched_with: the seeds of the search; what a final has added with others must not change who was in it.
    """
    search = [each for each in ended if each.point.seed in searched_with]
    return whole(search, searched_with)[: max(1, finalists)]


def finals(best: Iterable[Configuration], seeds: Sequence[int]) -> list[Point]:
    """The points to train for the final: each configuration with every seed."""
    return [Point(dict(one.params), seed) for one in best for seed in seeds]


def winner(ended: Sequence[Ended], seeds: Sequence[int], finalists: int) -> Configuration | None:
    """The best mean among configurations with every seed, or with most of them; without finalists, of all."""
    best = whole(ended, seeds) if finalists else ranked(ended)
    return best[0] if best else None
