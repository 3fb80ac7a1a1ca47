"""Tile sizes by kernel, head size and type: a table, so that nothing is tried out while a model trains.

Half types with heads of 64 have the best of a hundred that were tried on an H200 (64 rows of 512 + 176). The others are
chosen by what the compiler says: no registers spilled, and room for two programs on a multiprocessor.
`benchmarks/attention.py --sweep_tiles` tries others and names the best of a GPU.
"""

from dataclasses import dataclass

import torch
from triton.runtime import driver


@dataclass(frozen=True)
class Tile:
    """Queries and keys of a tile, and how its program runs."""

    queries: int
    keys: int
    warps: int
    stages: int
    registers: int | None = None
    """Most that a thread may use, where fewer than the compiler would take let one more program run."""


KERNELS = ("forward", "keys", "queries", "bias_shared", "bias_by_row")

_HALF = {
    "forward": Tile(64, 64, 4, 2, 128),
    "keys": Tile(32, 64, 4, 3, 168),
    "queries": Tile(64, 64, 4, 3, 168),
    "bias_shared": Tile(64, 32, 4, 3),
    "bias_by_row": Tile(16, 32, 1, 2, 168),
}
# Heads of 128, whose tiles take twice the room.
_HALF_WIDE = {
    "forward": Tile(128, 64, 8, 2),
    "keys": Tile(32, 128, 8, 2),
    "queries": Tile(128, 32, 8, 2),
    "bias_shared": Tile(64, 64, 8, 2),
    "bias_by_row": Tile(16, 64, 2, 2),
}
# On other GPUs: what the compiler has room for there.
_HALF_ELSEWHERE = {
    "forward": Tile(64, 32, 4, 4),
    "keys": Tile(32, 64, 4, 3),
    "queries": Tile(64, 32, 4, 3),
    "bias_shared": Tile(64, 64, 8, 2),
    "bias_by_row": Tile(16, 32, 1, 2),
}
# The wide ones where products take their operands from registers (Ampere, Ada, the small Blackwells), of which there
# are too few for Hopper's tiles: by the compiler's word those spilled 3 KB a thread on an A100.
_HALF_WIDE_IN_REGISTERS = _HALF_WIDE | {"keys": Tile(32, 64, 8, 2), "bias_shared": Tile(64, 32, 4, 2)}
_FULL = {
    "forward": Tile(64, 32, 4, 2),
    "keys": Tile(32, 64, 4, 1),
    "queries": Tile(64, 32, 4, 1),
    "bias_shared": Tile(64, 32, 4, 1),
    "bias_by_row": Tile(16, 32, 2, 1),
}

OVERRIDES: dict[str, Tile] = {}
"""Tiles to use instead, by kernel: for tests and the benchmark."""


def tile(kernel: str, width: int, dtype: torch.dtype) -> Tile:
    """Tile of a kernel for heads of size `width`, on the current GPU."""
    if kernel in OVERRIDES:
        return OVERRIDES[kernel]
    if dtype == torch.float32:
        return _FULL[kernel]
    generation = _generation()
    if width <= 64:
        return (_HALF if generation in (None, 9) else _HALF_ELSEWHERE)[kernel]
    return (_HALF_WIDE if generation in (None, 9, 10) else _HALF_WIDE_IN_REGISTERS)[kernel]


def _generation() -> int | None:
    """Of NVIDIA's GPUs: 8 are Ampere and Ada, 9 Hopper, 10 the large Blackwells, 12 the small; None in the interpreter
    and on other makers'."""
    try:
        target = driver.active.get_current_target()
    except RuntimeError:  # no GPU: Triton's interpreter
        return None
    return target.arch // 10 if target.backend == "cuda" else None
