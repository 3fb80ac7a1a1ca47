"""What makers' data sheets say of their GPUs: peak rates, memory, and the links inside a node. No torch here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """`rate` in floating-point operations a second (a multiply-add is 2); `source` says where the figure comes from."""

    rate: float
    source: str


@dataclass(frozen=True)
class Board:
    """Memory of one GPU, in bytes, and what it can send to its neighbours in the node, in bytes a second one way."""

    memory: float
    link: float


# Part of torch.cuda.get_device_name; TFLOP/s of dense products, fp32 without TF32; GB of the largest memory sold under
# the name; GB/s of NVLink or Infinity Fabric one way, else of the PCIe slot. First match wins.
_DATA_SHEETS: tuple[tuple[str, dict[str, float], float, float], ...] = (
    ("B200", {"bf16": 2250, "fp16": 2250, "tf32": 1125, "fp32": 75}, 180, 900),
    ("B100", {"bf16": 1750, "fp16": 1750, "tf32": 875, "fp32": 60}, 180, 900),
    ("H200 NVL", {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}, 141, 450),
    ("H200", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}, 141, 450),
    ("GH200", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}, 96, 450),
    ("H100 PCIe", {"bf16": 756.5, "fp16": 756.5, "tf32": 378, "fp32": 51.2}, 80, 64),
    ("H100 NVL", {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}, 94, 300),
    ("H100", {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}, 80, 450),
    ("A100", {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5}, 80, 300),
    ("A40", {"bf16": 149.7, "fp16": 149.7, "tf32": 74.8, "fp32": 37.4}, 48, 32),
    ("A30", {"bf16": 165, "fp16": 165, "tf32": 82, "fp32": 10.3}, 24, 32),
    ("L40S", {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6}, 48, 32),
    ("L40", {"bf16": 181, "fp16": 181, "tf32": 90.5, "fp32": 90.5}, 48, 32),
    ("L4", {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3}, 24, 32),
    ("V100", {"fp16": 125, "fp32": 15.7}, 32, 150),
    ("T4", {"fp16": 65, "fp32": 8.1}, 16, 16),
    ("MI300X", {"bf16": 1307.4, "fp16": 1307.4, "tf32": 653.7, "fp32": 163.4}, 192, 448),
    ("MI250X", {"bf16": 383, "fp16": 383, "fp32": 47.9}, 128, 250),
)


MEASURED_MFU = 0.28
"""Share of its data sheet that base reached on one H200 without CUDA graphs, as several GPUs go without; with them 0.31
(docs/scaling.md)."""


def datasheet(device_name: str, precision: str) -> Peak | None:
    """The data sheet's peak of a GPU at "fp32", "tf32", "bf16" or "fp16"; None where the table does not have it.

    >>> datasheet("NVIDIA A100-SXM4-80GB", "bf16")
    Peak(rate=312000000000000.0, source='data sheet of A100, dense bf16')
    >>> datasheet("Tesla V100-SXM2-32GB", "bf16") is None
    True
    """
    for name, rates, _, _ in _DATA_SHEETS:
        if _is(name, device_name):
            rate = rates.get(precision)
            return Peak(rate * 1e12, f"data sheet of {name}, dense {precision}") if rate else None
    return None


def board(device_name: str) -> Board | None:
    """Memory and links of a GPU; None where the table does not have it.

    >>> board("NVIDIA H100 80GB HBM3")
    Board(memory=80000000000.0, link=450000000000.0)
    """
    for name, _, memory, link in _DATA_SHEETS:
        if _is(name, device_name):
            return Board(memory * 1e9, link * 1e9)
    return None


def known() -> list[str]:
    """Names of the GPUs in the table."""
    return [name for name, *_ in _DATA_SHEETS]


def _is(name: str, device_name: str) -> bool:
    # Whole words: "L4" must not match "L40S".
    words = device_name.replace("-", " ").upper().split()
    return all(part in words for part in name.upper().split())
