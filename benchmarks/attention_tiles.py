"""Other tile sizes for the Triton kernels: which are best together on this GPU."""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import time
from typing import Any

from attention_problem import Problem, work
from kernels import milliseconds
from report import Report


def candidates(kernel: str) -> list[Any]:
    """Tiles with a sensible number of scores for each thread."""
    from pmlm_core.model.attention.tiled.sizes import Tile

    queries, keys, warps, stages, registers = {
        "forward": ((64, 128), (32, 64, 128), (4, 8), (2, 3), (128,)),
        "queries": ((64, 128), (32, 64), (4, 8), (2, 3), (168,)),
        "bias_by_row": ((16, 32), (32, 64), (1, 2), (1, 2, 3), (168,)),
        "bias_shared": ((64, 128), (32, 64), (4, 8), (2, 3), (128,)),
    }.get(kernel, ((32, 64), (64, 128), (4, 8), (2, 3), (168,)))
    return [
        Tile(q, k, w, s, r)
        for q, k, w, s, r in itertools.product(queries, keys, warps, stages, (None, *registers))
        if 8 <= q * k / (32 * w) <= 32
    ]


KERNELS = {
    "keys": "keys_gradient",
    "queries": "queries_gradient",
    "forward": "forward",
    "bias_shared": "bias_gradient_shared",
    "bias_by_row": "bias_gradient_by_row",
}
"""By the tile's name, the kernel's; in the order in which the sweep takes them, those with the most to gain first."""


def compile_tiles(problem: Problem) -> None:
    """Have all candidates compiled by as many processes as there are cores; the sweep finds them in Triton's cache."""
    jobs = [(kernel, tile) for kernel in KERNELS for tile in candidates(kernel)]
    processes = max(1, min(len(jobs), (os.cpu_count() or 2) - 1))
    # Fewer rows, and still a multiple of 16, which the compiler knows about.
    small = (16, problem.context, problem.heads, problem.width, problem.dtype, problem.device, problem.dropout)
    shares = [(small, jobs[at::processes]) for at in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(_compile_share, shares)


def _compile_share(size: tuple[Any, ...], jobs: list[tuple[str, Any]]) -> None:
    from pmlm_core.model.attention import tiled
    from pmlm_core.model.attention.tiled import sizes

    run = work(Problem(*size), True, tiled.attend, slice(None), True)
    for kernel, tile in jobs:
        sizes.OVERRIDES[kernel] = tile
        with contextlib.suppress(Exception):  # the sweep will meet it again, and say so
            run()
        del sizes.OVERRIDES[kernel]


def sweep(problem: Problem, args: argparse.Namespace, report: Report) -> None:
    from pmlm_core.model.attention import tiled
    from pmlm_core.model.attention.tiled import sizes

    begun = time.monotonic()
    compile_tiles(problem)
    print(f"compiled in {time.monotonic() - begun:.0f} s")
    stop = begun + args.sweep_seconds
    run = work(problem, True, tiled.attend, slice(None), True)
    for kernel, name in KERNELS.items():
        chosen = sizes.tile(kernel, problem.width, problem.dtype)
        found: list[tuple[float, sizes.Tile]] = []
        for tile in dict.fromkeys([chosen, *candidates(kernel)]):
            if time.monotonic() > stop:
                report.note(f"The time is over: {kernel} has been tried with {len(found)} tiles.")
                break
            sizes.OVERRIDES[kernel] = tile
            try:
                run()
                found.append((milliseconds(run)[name][1], tile))
            except Exception as failure:  # too much shared memory, as a rule
                print(f"{kernel} {tile}: {type(failure).__name__}")
        if not found:
            sizes.OVERRIDES.pop(kernel, None)
            continue
        best = min(found, key=lambda pair: pair[0])
        sizes.OVERRIDES[kernel] = best[1]
        rows = [
            [
                f"{t.queries} x {t.keys}, {t.warps} warps, {t.stages} stages, {t.registers or 'any'} registers",
                f"{ms:.3f}",
            ]
            for ms, t in sorted(found, key=lambda pair: pair[0])[:6]
        ]
        rows.append(["(the table has) " + str(chosen), f"{found[0][0]:.3f}"])
        report.table(f"Tiles of `{kernel}`: a layer's `{name}` with them", ("tile", "ms"), rows)
    report.note("Best together: " + ", ".join(f'"{k}": {tile}' for k, tile in sizes.OVERRIDES.items()))
