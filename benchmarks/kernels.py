"""Where a GPU's time goes: a table of the kernels that a piece of work launches."""

from collections.abc import Callable

import torch
from report import Report

_SORTS = (
    ("matrix products", ("gemm", "nvjet", "cutlass", "xmma", "splitkreduce")),
    ("between products", ("triton_", "_norm_", "_gelu_")),
    ("attention", ("forward", "keys_gradient", "queries_gradient", "bias_gradient", "deltas", "flash", "fmha")),
    ("cross-entropy", ("cross_entropy",)),
    ("optimizer and norms", ("multi_tensor", "adam")),
    ("copies", ("memcpy", "memset", "copy_kernel", "catarray")),
)


def sort_of(kernel: str) -> str:
    """What a kernel is for, by its name.

    >>> sort_of("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT"), sort_of("triton_red_fused_add_4")
    ('matrix products', 'between products')
    """
    name = kernel.lower()
    return next((sort for sort, marks in _SORTS if any(mark in name for mark in marks)), "else")


def milliseconds(run: Callable[[], object], repeats: int = 5) -> dict[str, tuple[float, float]]:
    """By the kernel's name: how often it is launched in one run, and what that takes, the longest first."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as seen:
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
    found = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)
    return {event.key: (event.count / repeats, event.self_device_time_total / repeats / 1e3) for event in found}


def by_kernel(run: Callable[[], object], report: Report, title: str, repeats: int = 5, shown: int = 14) -> None:
    """What each kernel on the GPU takes of one run, the longest first, and the sums of each sort."""
    run()
    spent = milliseconds(run, repeats)
    rows = [(kernel[:76], f"{count:.0f}", f"{ms:.3f}") for kernel, (count, ms) in list(spent.items())[:shown] if ms]
    report.table(f"{title}: kernel by kernel", ("kernel", "launches", "ms"), rows)
    sums: dict[str, float] = {}
    for name, (_, ms) in spent.items():
        sums[sort_of(name)] = sums.get(sort_of(name), 0.0) + ms
    total = sum(sums.values())
    ordered = sorted(sums.items(), key=lambda pair: -pair[1])
    report.note(f"{title}, {total:.2f} ms on the GPU: " + ", ".join(f"{n} {s:.2f}" for n, s in ordered) + ".")
