"""The trial of the Triton kernel: once in a process for each device, type and head size, before it is trusted.

On a batch as pre-training has it: full rows with an appended part, which has codes and places of its own.
"""

import warnings
from functools import cache
from typing import Any

import torch

from pmlm_core.model.attention.plan import make_plan
from pmlm_core.model.attention.reference import attend, dense
from pmlm_core.model.attention.relbias import RelativeBias
from pmlm_core.model.pseudo import lay_out
from pmlm_core.model.trying import beside_the_step, errors, problem_of

_ROOM = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Share of the largest number by which results may be off: float32 products may be TF32."""


@cache
def passes(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether the kernel compiles, runs and agrees with the reference, forward and backward; a warning says if not."""
    problem = problem_of(lambda: _worst_error(device, dtype, width), _ROOM[dtype], "is off by")
    if problem:
        warnings.warn(
            f"The Triton attention kernel {problem} on {device} with heads of {width} in {dtype}; attention is "
            "computed by torch's scaled_dot_product_attention instead, which is slower.",
            stacklevel=2,
        )
    return not problem


@torch.inference_mode(False)
@torch.enable_grad()
def _worst_error(device: torch.device, dtype: torch.dtype, width: int) -> float:
    from pmlm_core.model.attention import tiled

    draw = torch.Generator().manual_seed(0)
    batch, heads, n, slots = 2, 2, 80, 10
    steps_BK = torch.randint(1, 5, (batch, slots), generator=draw)
    positions_BK = torch.stack([torch.randperm(n, generator=draw)[:slots] for _ in range(batch)])
    relative = RelativeBias(heads, 32, 64).to(device)
    with torch.no_grad():
        relative.weight.copy_(torch.randn(heads, 32, generator=draw))
    fused = torch.randn(batch, n + 2 * slots, 4, heads, width, generator=draw).to(device, dtype)
    results: list[list[Any]] = []
    with beside_the_step(device):
        plan = make_plan(
            lay_out(torch.ones(batch, n, device=device), steps_BK.to(device)),
            padded=False,
            relative=relative,
            reach=n,
            position_ids_BN=None,
            slot_positions_BK=positions_BK.to(device),
            read_ae=False,
            dtype=dtype,
            kernel="triton",
        )
        for ours in (True, False):
            relative.weight.grad = None
            kept = dtype if ours else torch.float32
            q, k, v = (x.to(kept).requires_grad_() for x in fused[:, :, :3].unbind(2))
            if ours:
                out = tiled.attend(q, k, v, plan.full, 0.0)
            else:
                out = attend(q, k, v, [dense(call, batch) for call in plan.full], 0.0)
            out.backward(fused[:, :, 3].to(kept), retain_graph=ours)
            results.append([out, *(x.grad for x in (q, k, v, relative.weight))])
        found = errors(results)
        with torch.no_grad():
            q, k, v = fused[:, :, :3].unbind(2)
            dropped = tiled.attend(q, k, v, plan.full, 0.1)
        found.append(torch.where(dropped.isfinite().all(), found[0], torch.inf))
        return float(torch.stack(found).max().detach())
