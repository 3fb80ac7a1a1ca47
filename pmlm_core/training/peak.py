"""The peak rate of a processor, the denominator of MFU (model FLOPs utilization, Chowdhery et al. 2022, appendix B).

A GPU's comes from its maker's data sheet (`datasheet`), for dense matrix products. A CPU's, and that of a GPU not in
the table, is measured: the best of some large matrix products with the threads this process has.
"""

import time
from functools import lru_cache

import torch

from pmlm_core.training.datasheet import Peak, datasheet

__all__ = ["Peak", "datasheet", "peak"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def peak(device: torch.device | str, precision: str) -> Peak:
    """The peak of `device` at `precision` ("fp32" or "bf16").

    Measuring takes about a second, once a process. On a GPU that multiplies fp32 as TF32
    (`torch.backends.cuda.matmul.allow_tf32`), "fp32" means the TF32 peak.
    """
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        used = "tf32" if precision == "fp32" and torch.backends.cuda.matmul.allow_tf32 else precision
        found = datasheet(name, used)
        if found:
            return found
    return _measured(str(device), precision, torch.get_num_threads())


@lru_cache(maxsize=8)
def _measured(device: str, precision: str, threads: int) -> Peak:
    if torch.device(device).type != "cpu":
        return Peak(_best_rate(device, precision), f"measured: best {precision} matrix product, {device}")
    rate = _best_rate(device, precision)
    if threads > 1:
        # On a machine busy with something else, threads wait for each other, and one alone can be the faster.
        torch.set_num_threads(1)
        try:
            rate = max(rate, _best_rate(device, precision))
        finally:
            torch.set_num_threads(threads)
    return Peak(rate, f"measured: best {precision} matrix product, {threads} thread{'s' * (threads > 1)}")


def _best_rate(device: str, precision: str) -> float:
    rate, side = 0.0, 256
    deadline = time.perf_counter() + 0.6
    # Sizes grow while a product stays short: bf16 without hardware for it can be a hundred times slower than fp32.
    while time.perf_counter() < deadline:
        seconds = min(_time_product(device, _DTYPES[precision], side) for _ in range(2))
        rate = max(rate, 2.0 * side**3 / seconds)
        if side < 4096 and seconds * 8 < 0.1:
            side *= 2
    return rate


def _time_product(device: str, dtype: torch.dtype, side: int) -> float:
    a_SS = torch.ones(side, side, dtype=dtype, device=device)
    out_SS = torch.empty_like(a_SS)
    torch.mm(a_SS, a_SS, out=out_SS)  # warm-up: pages, kernels
    _wait(device)
    start = time.perf_counter()
    torch.mm(a_SS, a_SS, out=out_SS)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
