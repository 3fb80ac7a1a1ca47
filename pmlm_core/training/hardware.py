"""What a worker computes on: device, threads, and the type of its matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pmlm_core.errors import ConfigError, TrainingError
from pmlm_core.training.step import Precision


def set_up(*, use_gpu: bool, threads: int, precision: str) -> Precision:
    """Prepare this process for training and say with what it computes.

    Args:
        threads: CPU threads; results on a CPU are bitwise the same only with the same number.
        precision: "fp32", "bf16", or "auto": bf16 where the processor multiplies in it, fp32 elsewhere.

    Raises:
        ConfigError: a GPU is asked for and there is none, or bf16 on a GPU that has none.
    """
    torch.set_num_threads(threads)
    if not use_gpu:
        return Precision(torch.device("cpu"), cpu_precision(precision))
    if not torch.cuda.is_available():
        raise ConfigError(
            "use_gpu is true, but torch sees no GPU in the worker; set use_gpu to false or install CUDA's torch"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"{torch.cuda.get_device_name(device)} does not compute in bf16; set precision to fp32")
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return Precision(device, precision)


def cpu_precision(precision: str) -> str:
    """The type of a CPU's matrix products, "auto" settled."""
    if precision != "auto":
        return precision
    return "bf16" if cpu_multiplies_in_bf16() else "fp32"


def cpu_multiplies_in_bf16() -> bool:
    """Whether this processor has bf16 products (AVX512-BF16 or AMX); emulated ones are far slower than fp32."""
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in flags)


@contextmanager
def full_memory_told(way_out: str) -> Iterator[None]:
    """Say in a sentence that a GPU's memory is full.

    Args:
        way_out: what to do about it.

    Raises:
        TrainingError: in the place of torch's error.

    >>> with full_memory_told("give a smaller eval_batch_size"):
    ...     raise torch.OutOfMemoryError("tried to allocate 2 GiB")
    Traceback (most recent call last):
    pmlm_core.errors.TrainingError: the GPU's memory is full: give a smaller eval_batch_size (tried to allocate 2 GiB)
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"the GPU's memory is full: {way_out} ({str(error).splitlines()[0]})") from error


def versions() -> dict[str, str]:
    """What computed a checkpoint, for whoever wonders why two runs differ in the last bit."""
    return {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
