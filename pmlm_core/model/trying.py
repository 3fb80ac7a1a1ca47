"""What the trials of kernels share: a kernel is tried once in a process, inside a step that must not feel it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pmlm_core.errors import in_a_line


@contextmanager
def beside_the_step(device: torch.device) -> Iterator[None]:
    """A step's random numbers are its own, whether or not a trial comes first; nor does a layer that is recomputed take
    a trial's activations for its own, or autocast change its types."""
    drawn_there = torch.random.fork_rng([device] if device.type == "cuda" else [])
    apart = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    with drawn_there, apart, torch.autocast(device.type, enabled=False):
        yield


def errors(results: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Of what was got and what was expected: the largest error in each, as a share of the largest number there."""
    return [
        ((got.float() - expected).abs().max() / expected.abs().max()).nan_to_num(nan=torch.inf)
        for got, expected in zip(*results, strict=True)
    ]


def problem_of(worst: Callable[[], float], room: float, is_off: str) -> str:
    """What is wrong with a kernel whose worst error this gives, in words after its name; "" if nothing is."""
    try:
        error = worst()
    except Exception as failure:  # whatever a compiler or driver may raise
        return f"failed ({in_a_line(failure)})"
    return "" if error <= room else f"{is_off} {error:.1%}"
