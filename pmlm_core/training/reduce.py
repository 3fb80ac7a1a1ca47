"""Sums over all workers, through whatever process group is up; with none, over the one worker there is."""

from collections.abc import Sequence

import torch
import torch.distributed as dist


def world_size() -> int:
    """Number of workers training together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_sum(values: Sequence[float], device: torch.device) -> list[float]:
    """Sum each of `values` over the workers, in float64: exact for counts below 2**53."""
    if world_size() == 1:
        return [float(value) for value in values]
    tensor = torch.tensor(list(values), dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()
