"""Randomness as a function of (seed, what it is for, index): no generator carries a history.

`key` folds names and numbers into 64 bits; `mix64` and `draw` are the counter-based generator (splitmix64 finaliser)
that compiled loops call. Equal arguments give equal draws on every machine and with any number of workers.
"""

import hashlib

import numpy as np

from pmlm_core.jit import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key(*parts: int | str | bytes) -> int:
    """Fold `parts` into an unsigned 64-bit key.

    >>> key(0, "masking", 3) == key(0, "masking", 3)
    True
    >>> key(0, "masking", 3) == key(0, "masking", 4)
    False
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return int.from_bytes(digest.digest(), "little")


@njit(inline="always")
def mix64(x: np.uint64) -> np.uint64:
    """Scramble 64 bits (splitmix64 finaliser, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def draw(stream: np.uint64, counter: np.uint64) -> np.uint64:
    """The `counter`-th 64 random bits of `stream`."""
    return mix64(stream + (counter + np.uint64(1)) * _GOLDEN)


@njit(inline="always")
def below(bits: np.uint64, n: int) -> np.int64:
    """Map 64 random bits to 0..n-1 (multiply-shift on the upper 32 bits; bias under n / 2**32)."""
    return np.int64(((bits >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
