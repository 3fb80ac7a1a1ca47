"""Compiled loops over tensors on the CPU: numbers of any type, exponentials, random bits, and work shared by threads.

torch makes a pass over memory for each operation, and widens bf16 and bool through copies. A loop compiled by numba
makes one pass for a chain of operations, with vector instructions for as long as its body is plain arithmetic.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor

from pmlm_core.jit import njit

compiled = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
"""Compile a loop: sums in any order and divisions by zero unasked, as vector instructions need it, but NaN and infinity
as everywhere."""

_LEAST = 16_384
"""Numbers that are worth a thread of their own."""


def numbers(x: Tensor) -> npt.NDArray[Any]:
    """The memory of `x` for a compiled loop, in one dimension; bf16 as its bits, uint16.

    >>> numbers(torch.tensor([1.0, -2.0], dtype=torch.bfloat16)).dtype, numbers(torch.zeros(2, 3)).shape
    (dtype('uint16'), (6,))
    """
    flat = x.detach().view(-1)
    if x.dtype is torch.bfloat16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"on a CPU pmlm computes in bfloat16, float32 or float64, not in {x.dtype}")
    return flat.numpy()


def number(dtype: torch.dtype, x: float) -> np.float32 | np.float64:
    """`x` in the type that loops over numbers of `dtype` compute in."""
    return np.float64(x) if dtype is torch.float64 else np.float32(x)


def threshold(p: float) -> np.uint32:
    """Below it, 16 random bits leave a value out with probability `p`: 0 for p = 0 alone, so that no p is lost."""
    return np.uint32(max(1, round(p * 65536)) if p else 0)


def share_rows(work: Callable[[int, int], Any], rows: int, width: int) -> list[Any]:
    """What `work(start, stop)` gives for each part of the rows, in their order; the parts are computed by as many
    threads as torch has here, and are the same ones whenever the number of threads is."""
    threads = min(torch.get_num_threads(), rows, max(1, rows * width // _LEAST))
    if threads <= 1:
        return [work(0, rows)]
    edges = [rows * part // threads for part in range(threads + 1)]
    pool = _pool(torch.get_num_threads() - 1)
    others = [pool.submit(work, a, b) for a, b in pairwise(edges[1:])]
    return [work(edges[0], edges[1]), *(other.result() for other in others)]


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="pmlm-loop")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has none of the threads


def get(values, i):  # type: ignore[no-untyped-def]
    """`values[i]` as a number to compute with: float32, or float64 where the values are. For compiled loops only."""
    raise NotImplementedError


def put(values, i, x):  # type: ignore[no-untyped-def]
    """`values[i] = x`, rounded to nearest even. For compiled loops only.

    `x` must not be a conditional expression itself, which numba loses when it inlines: name it first.
    """
    raise NotImplementedError


def largest(values):  # type: ignore[no-untyped-def]
    """The largest of `values`; NaN may be left out or may be it. For compiled loops only."""
    raise NotImplementedError


def exp(x):  # type: ignore[no-untyped-def]
    """e ** x of an x <= 0, to 1e-7 of its value in float32; exactly 0 below -87. For compiled loops only."""
    raise NotImplementedError


def _float_of(typingctx, bits):  # type: ignore[no-untyped-def]
    return types.float32(types.uint32), lambda _, builder, __, args: builder.bitcast(args[0], ir.FloatType())


def _bits_of(typingctx, number):  # type: ignore[no-untyped-def]
    return types.uint32(types.float32), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(32))


_as_float: Any = intrinsic(_float_of)
_as_bits: Any = intrinsic(_bits_of)


@overload(get, inline="always")
def _get(values, i):  # type: ignore[no-untyped-def]
    if values.dtype == types.uint16:
        return lambda values, i: _as_float(np.uint32(np.uint32(values[i]) << np.uint32(16)))
    return lambda values, i: values[i]


@overload(put, inline="always")
def _put(values, i, x):  # type: ignore[no-untyped-def]
    if values.dtype == types.uint16:

        def put_bf16(values, i, x):  # type: ignore[no-untyped-def]
            bits = _as_bits(np.float32(x))
            values[i] = np.uint16(
                (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            )

        return put_bf16

    def put_same(values, i, x):  # type: ignore[no-untyped-def]
        values[i] = x

    return put_same


@overload(largest)
def _largest(values):  # type: ignore[no-untyped-def]
    # Floats compare like whole numbers once those below zero are turned round, and only a whole number's maximum is
    # taken with vector instructions.
    if values.dtype == types.uint16:

        def largest_bf16(values):  # type: ignore[no-untyped-def]
            top = np.int32(-(2**31))
            for i in range(len(values)):
                bits = np.int32(np.int16(values[i]))
                top = max(top, np.int32(bits ^ ((bits >> 15) & 0x7FFF)))
            return _as_float(np.uint32(top ^ ((top >> 15) & 0x7FFF)) << np.uint32(16))

        return largest_bf16
    if values.dtype == types.float32:

        def largest_float32(values):  # type: ignore[no-untyped-def]
            top = np.int32(-(2**31))
            for i in range(len(values)):
                bits = np.int32(_as_bits(values[i]))
                top = max(top, np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)))
            return _as_float(np.uint32(top ^ ((top >> 31) & 0x7FFFFFFF)))

        return largest_float32
    return lambda values: values.max()


@overload(exp, inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    if x == types.float64:
        return lambda x: np.exp(x)

    def exp_float32(x):  # type: ignore[no-untyped-def]
        # 2 ** n * e ** r with |r| <= ln 2 / 2.
        z = x if x > np.float32(-87.0) else np.float32(-87.0)
        n = np.floor(z * np.float32(1.4426950408889634) + np.float32(0.5))
        r = (z - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
        y = np.float32(1 / 5040)
        y = y * r + np.float32(1 / 720)
        y = y * r + np.float32(1 / 120)
        y = y * r + np.float32(1 / 24)
        y = y * r + np.float32(1 / 6)
        y = y * r + np.float32(1 / 2)
        y = y * r + np.float32(1)
        y = y * r + np.float32(1)
        scaled = y * _as_float(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))
        return scaled if x > np.float32(-87.0) else (np.float32(0) if x == x else x)

    return exp_float32


@numba.njit(inline="always")
def random_words(words, seed, first):  # type: ignore[no-untyped-def]
    """Fill uint64 `words` with random bits: word i by splitmix64 (Steele et al. 2014) of (seed, first + i)."""
    for i in range(len(words)):
        h = seed + (first + np.uint64(i)) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words[i] = h ^ (h >> np.uint64(31))
