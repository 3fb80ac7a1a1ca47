"""The order in which training visits rows: a pseudo-random permutation per epoch, computed where it is needed and never
stored, so that starting or resuming at any step costs the same on any number of rows.
"""

import numpy as np
import numpy.typing as npt

from pmlm_core.errors import DataError
from pmlm_core.jit import njit
from pmlm_core.randomness import below, draw, key

_ROUNDS = 8


def permute(indices: npt.NDArray[np.int64], n_rows: int, permutation_key: int) -> npt.NDArray[np.int64]:
    """Images of `indices` under the permutation of 0..n_rows-1 that `permutation_key` names.

    A Feistel network on Z_a x Z_b with a * b just above n_rows, walked until it lands below n_rows (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002).

    >>> sorted(permute(np.arange(10), 10, 7).tolist()) == list(range(10))
    True
    """
    return _permute(np.asarray(indices, dtype=np.int64), n_rows, np.uint64(permutation_key))


def batch_rows(
    n_rows: int, batch_size: int, seed: int, step: int, views: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and views of the global batch of `step`.

    Sample g = step * batch_size + j (j-th of the batch) belongs to epoch g // n_rows; every epoch visits every row
    once, in its own order, with view `epoch % views`.

    Args:
        n_rows: rows of the split.
        batch_size: rows of a global batch, over all workers and micro-batches.
        seed: of the run.
        step: 0-based.
        views: masked views the blocks hold.

    Returns:
        (rows, views), int64 [batch_size] each.

    Raises:
        DataError: there are no rows.
    """
    if n_rows < 1:
        raise DataError("The split holds no rows; preprocess more text, or another share of it (validation_fraction).")
    epochs, within = np.divmod(step * batch_size + np.arange(batch_size, dtype=np.int64), n_rows)
    rows = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs).tolist():
        chosen = epochs == epoch
        rows[chosen] = permute(within[chosen], n_rows, key(seed, "row order", epoch))
    return rows, epochs % views


@njit(nogil=True)
def _permute(indices, n_rows, permutation_key):  # type: ignore[no-untyped-def]
    a = np.int64(np.ceil(np.sqrt(np.float64(n_rows))))
    b = (n_rows + a - 1) // a
    images = np.empty(len(indices), np.int64)
    for i in range(len(indices)):
        x = indices[i]
        while True:  # ends: the walk follows the cycle of a start below n_rows, which comes back to it at the latest
            left, right = x // b, x % b
            for r in range(0, _ROUNDS, 2):
                left = (left + _round(permutation_key, r, right, a)) % a
                right = (right + _round(permutation_key, r + 1, left, b)) % b
            x = left * b + right
            if x < n_rows:
                break
        images[i] = x
    return images


@njit(nogil=True, inline="always")
def _round(permutation_key, number, half, n):  # type: ignore[no-untyped-def]
    """Round function: `half` hashed to 0..n-1, another function for every round."""
    stream = draw(permutation_key, np.uint64(number))
    return below(draw(stream, np.uint64(half)), n)
