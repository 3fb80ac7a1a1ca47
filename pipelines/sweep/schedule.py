"""The time by which trials are compared that train for different numbers of epochs: the share of their own schedule.

The learning rate falls linearly over a trial's own epochs: at the same epoch a long trial is further from its end than
a short one, and behind it, however good it becomes.
"""

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Schedule:
    """What a search's stopping rules go by.

    Its unit is the grace period, a share of every trial's schedule that ends with an epoch of the shortest: until then
    nothing is stopped. So does whatever is a multiple of it, and a longer trial, which is told of more often, is never
    judged at a smaller share than the shortest.

    Attributes:
        shortest: epochs of the shortest trial.
        grace: of these, epochs before which no trial is stopped.
    """

    shortest: int
    grace: int

    @classmethod
    def of(cls, shortest: int, grace_epochs: int, warmup_ratio: float) -> "Schedule":
        """The grace period lasts so many epochs of the shortest trial, and as long as any warms up.

        >>> Schedule.of(shortest=5, grace_epochs=1, warmup_ratio=0.3)
        Schedule(shortest=5, grace=2)
        """
        warm = ceil(warmup_ratio * shortest - 1e-9)
        return cls(shortest, min(shortest, max(grace_epochs, warm)))

    def time(self, epoch: float, epochs: int) -> float:
        """Of an epoch that has ended, in a trial of so many; multiples of the unit are exact."""
        return epoch * self.shortest / (epochs * self.grace)

    @property
    def can_stop(self) -> bool:
        """Whether there is an epoch of the shortest trial, before its last, after which a trial may be stopped."""
        return self.grace < self.shortest

    @property
    def full(self) -> float:
        """When every trial's training ends."""
        return self.time(1, 1)

    @property
    def ended(self) -> float:
        """When a trial's model has been scored with the recipe's decoding: after all that it is compared by."""
        return self.full + 1

    def rungs(self, factor: int) -> int:
        """How many of 1, `factor`, `factor`² ... lie before the end of training.

        >>> Schedule(shortest=10, grace=2).rungs(2), Schedule(shortest=3, grace=1).rungs(3), Schedule(1, 1).rungs(2)
        (3, 1, 0)
        """
        count = 0
        while self.grace * factor**count < self.shortest:
            count += 1
        return count
