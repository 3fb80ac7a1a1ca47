"""`torch.compile` for the parts of a model that lie around attention and the output layer.

On a GPU much of a layer's time goes to what is between the matrix products: activation, dropout, residual, LayerNorm,
and the changes of type that autocast makes. Compiled, these are a few kernels. Attention, cross-entropy and, where they
pass their trial, most of these have kernels of their own (`fused.py`), and stay as they are. All layers share one
compiled form, so a deep model compiles no longer than a shallow one, and wrappers around layers (DDP, FSDP2,
recomputation) find modules as they know them.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from pmlm_core.errors import in_a_line


class InParts(nn.Module):
    """A module some of whose work is done in compiled form, if `compile_parts` was called on it or on what it is in."""

    compiled = False

    def part(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, compiled while this module trains, where asked for; in evaluation shapes vary too much."""
        return _compiled(work) if self.compiled and self.training else work


def compile_parts(model: nn.Module) -> None:
    """Do the work of the model's modules in compiled form from now on, in training; it compiles on first use.

    The shapes of a batch should stay the same: each new one is compiled anew, and after some of them no more.
    """
    for module in model.modules():
        if isinstance(module, InParts):
            module.compiled = True


@cache
def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` works on `device`, tried once in a process on a small function; a warning says if not.

    It wants a C compiler, and of a GPU that Triton knows it.
    """
    try:
        torch.compile(lambda x: (x * 2 + 1).sum(), dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # whatever a compiler or driver may raise
        warnings.warn(
            f"torch.compile fails on {device} ({in_a_line(error)}); nothing is compiled, which is slower.", stacklevel=2
        )
        return False
    return True


@cache
def _compiled(work: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(work, dynamic=False)
