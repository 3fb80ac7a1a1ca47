"""One layer's attention as a piece of work to be timed."""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from race import Samples, race
from torch import Tensor

from pmlm_core.model.attention.interface import Call
from pmlm_core.model.attention.plan import make_plan
from pmlm_core.model.attention.relbias import RelativeBias
from pmlm_core.model.cost import max_predictions
from pmlm_core.model.pseudo import lay_out

Attend = Callable[[Tensor, Tensor, Tensor, Sequence[Call], float], Tensor]


@dataclass
class Problem:
    """One layer's attention at one size."""

    rows: int
    context: int
    heads: int
    width: int
    dtype: torch.dtype
    device: torch.device
    dropout: float

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.slots = max_predictions(self.context)
        self.total = self.context + 2 * self.slots
        self.relative = RelativeBias(self.heads, 32, 128).to(self.device)
        torch.nn.init.normal_(self.relative.weight, std=0.5)
        self.fused = torch.randn(self.rows, self.total, 4, self.heads, self.width, device=self.device)
        # In order, as the model has them.
        positions = torch.stack([torch.randperm(self.context)[: self.slots] for _ in range(self.rows)]).sort(1).values
        steps = torch.rand(self.rows, self.slots).argsort(1).div(3, rounding_mode="floor") + 1
        self.positions, self.steps = positions.to(self.device), steps.to(self.device)

    def calls(self, structured: bool, dtype: torch.dtype) -> list[Call]:
        """A and B."""
        whole = torch.ones(self.rows, self.context, device=self.device)
        plan = make_plan(
            lay_out(whole, self.steps),
            padded=False,
            relative=self.relative,
            reach=self.context,
            position_ids_BN=None,
            slot_positions_BK=self.positions,
            read_ae=False,
            dtype=dtype,
            kernel="triton" if structured else "plain",
        )
        return list(plan.full)

    def flops(self, calls: Sequence[Call], products: int) -> int:
        scores = sum((call.stop - call.start) * call.keys for call in calls)
        return products * 2 * scores * self.width * self.heads * self.rows


def bias_of(call: Call) -> Tensor:
    """What the gradient of a call's bias goes to."""
    if call.rule is not None and call.rule.bias is not None:
        return call.rule.bias.weight_HM
    assert call.bias is not None
    return call.bias


def with_own_bias(calls: Sequence[Call]) -> list[Call]:
    """The same calls with biases that nothing was computed for: a step makes them once for all layers."""
    made = []
    for call in calls:
        own = bias_of(call).detach().requires_grad_()
        if call.rule is None or call.rule.bias is None:
            made.append(replace(call, bias=own))
        else:
            made.append(replace(call, rule=replace(call.rule, bias=replace(call.rule.bias, weight_HM=own, sums=None))))
    return made


def work(problem: Problem, structured: bool, attend: Attend, part: slice, backward: bool) -> Callable[[], object]:
    calls = with_own_bias(problem.calls(structured, problem.dtype)[part])
    first = calls[0].start
    calls = [replace(call, start=call.start - first, stop=call.stop - first) for call in calls]
    fused = problem.fused.to(problem.dtype)
    qkv = fused[:, :, :3].contiguous().requires_grad_()
    grad = fused[:, first : first + calls[-1].stop, 3].contiguous()

    def run() -> None:
        q, k, v = qkv.unbind(2)
        out = attend(q[:, first : first + calls[-1].stop], k, v, calls, problem.dropout)
        if backward:
            qkv.grad = None
            for call in calls:
                bias_of(call).grad = None
            out.backward(grad)

    return run


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def times(works: dict[str, Callable[[], object]], args: argparse.Namespace, device: torch.device) -> Samples:
    """Seconds of one run of each, round by round."""

    def several(run: Callable[[], object]) -> None:
        for _ in range(args.repeats):
            run()

    samples = race({name: partial(several, run) for name, run in works.items()}, args.rounds, partial(clock, device))
    return {name: [seconds / args.repeats for seconds in rounds] for name, rounds in samples.items()}
