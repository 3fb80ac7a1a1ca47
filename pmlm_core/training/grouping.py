"""Batches of rows of similar length, for data whose rows are not packed: a function of (lengths, seed, epoch).

Rows are shuffled, sorted by length within mega-batches of `MEGA` batches, cut into batches, and the batches shuffled:
little padding, every row once an epoch, and no memory of earlier epochs, so a resumed run needs only its step.
"""

import numpy as np
import numpy.typing as npt

from pmlm_core.corpus.order import permute
from pmlm_core.errors import DataError
from pmlm_core.randomness import key

MEGA = 50
"""Batches of a mega-batch: enough to leave little padding, few enough that batches differ between epochs."""


class GroupedBatches:
    """The global batch of every step; the last rows of an epoch make one shorter batch, and none is left out.

    Args:
        lengths: tokens of every row, [rows].
        batch_size: rows of a global batch, over all workers.

    Raises:
        DataError: there are no rows.

    >>> batches = GroupedBatches(np.array([5, 9, 5, 9, 7]), batch_size=2, seed=0)
    >>> batches.steps_per_epoch
    3
    >>> sorted(row for step in range(3) for row in batches.rows(step).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, lengths: npt.ArrayLike, batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        if len(self.lengths) < 1:
            raise DataError("there are no rows to train on; see the rows that were left out, and the training file")
        self.batch_size, self.seed = batch_size, seed
        self.steps_per_epoch = -(-len(self.lengths) // batch_size)
        self._epoch = -1
        self._batches: list[npt.NDArray[np.int64]] = []

    def epoch_of(self, step: int) -> int:
        """Epoch, from 0, that step `step`, from 0, belongs to."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """Rows of the global batch of `step`, the longest first; neighbours, and so micro-batches, are alike."""
        epoch = self.epoch_of(step)
        if epoch != self._epoch:
            self._batches, self._epoch = self._cut(epoch), epoch
        return self._batches[step % self.steps_per_epoch]

    def _cut(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        count = len(self.lengths)
        order = permute(np.arange(count), count, key(self.seed, "row order", epoch))
        batches = []
        mega = MEGA * self.batch_size
        for start in range(0, count, mega):
            rows = order[start : start + mega]
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
            batches += [rows[at : at + self.batch_size] for at in range(0, len(rows), self.batch_size)]
        shuffled = permute(np.arange(len(batches)), len(batches), key(self.seed, "batch order", epoch))
        return [batches[at] for at in shuffled]
