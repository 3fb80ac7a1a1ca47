"""The peak rate of a processor, the denominator of MFU (model FLOPs utilization, Chowdhery et al. 2022, appendix B).

A GPU's comes from its maker's data sheet, for dense matrix products. A CPU's, and that of a GPU not in the table, is
measured: the best of some large matrix products with the threads this process has.
"""

import time
from dataclasses import dataclass
from functools import lru_cache

import torch

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Peak:
    """`rate` in floating-point operations a second (a multiply-add is 2); `source` says where the figure comes from."""

    rate: float
    source: str


# Part of torch.cuda.get_device_name -> TFLOP/s of dense products. First match wins. fp32 is without TF32.
_DATA_SHEETS: tuple[tuple[str, dict[str, float]], ...] = (
    ("B200", {"bf16": 2250, "fp16": 2250, "tf32": 1125, "fp32": 75}),
    ("B100", {"bf16": 1750, "fp16": 1750, "tf32": 875, "fp32": 60}),
    ("H200 NVL", {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}),
    ("H200", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}),
    ("GH200", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}),
    ("H100 PCIe", {"bf16": 756.5, "fp16": 756.5, "tf32": 378, "fp32": 51.2}),
    ("H100 NVL", {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}),
    ("H100", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}),
    ("A100", {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5}),
    ("A40", {"bf16": 149.7, "fp16": 149.7, "tf32": 74.8, "fp32": 37.4}),
    ("A30", {"bf16": 165, "fp16": 165, "tf32": 82, "fp32": 10.3}),
    ("L40S", {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6}),
    ("L40", {"bf16": 181, "fp16": 181, "tf32": 90.5, "fp32": 90.5}),
    ("L4", {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3}),
    ("V100", {"fp16": 125, "fp32": 15.7}),
    ("T4", {"fp16": 65, "fp32": 8.1}),
    ("MI300X", {"bf16": 1307.4, "fp16": 1307.4, "tf32": 653.7, "fp32": 163.4}),
    ("MI250X", {"bf16": 383, "fp16": 383, "fp32": 47.9}),
)


def datasheet(device_name: str, precision: str) -> Peak | None:
    """The data sheet's peak of a GPU at "fp32", "tf32", "bf16" or "fp16"; None where the table does not have it.

    >>> datasheet("NVIDIA A100-SXM4-80GB", "bf16")
    Peak(rate=312000000000000.0, source='data sheet of A100, dense bf16')
    >>> datasheet("Tesla V100-SXM2-32GB", "bf16") is None
    True
    """
    words = device_name.replace("-", " ").upper().split()
    for name, rates in _DATA_SHEETS:
        # Whole words: "L4" must not match "L40S", nor "A10" an "A100".
        if all(part in words for part in name.upper().split()):
            rate = rates.get(precision)
            return Peak(rate * 1e12, f"data sheet of {name}, dense {precision}") if rate else None
    return None


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
