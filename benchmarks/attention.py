"""The attention kernels beside each other: calls A and B of one layer, forward and backward.

    python benchmarks/attention.py [--rows 64] [--dtype bfloat16] [--dropout 0.0] [--sweep_tiles] [--save]

On a GPU: `sdpa`, the Triton kernels, FlexAttention with the bias looked up by distance, and FlashAttention without bias
or mask, which nothing with a bias can beat. On a CPU: `plain` and `sdpa`. What fails to run is named with its reason.

Products are counted as usual: two of Q x S x E forward, five backward, whatever a kernel computes anew. A race's
contestants take turns; of each, the median round counts. The error is that of output and gradients of the queries,
keys, values and bias against float64, as a share of the largest number, at two rows.

`--sweep_tiles` first tries other tile sizes for each Triton kernel, those with the most to gain first, until
`--sweep_seconds` are over, and goes on with the best.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from attention_problem import Attend, Problem, times, work
from attention_tiles import sweep
from kernels import by_kernel
from report import Report, options
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from pmlm_core.model.attention import plain, reference, sdpa
from pmlm_core.model.attention.interface import Call, Rule

FORWARD, BACKWARD = 2, 5


def flex() -> Attend:
    """FlexAttention with the whole table by distance captured, in float32, and the mask by blocks."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    known: dict[int, tuple[Rule, dict[str, Any]]] = {}

    def options_of(call: Call, rule: Rule) -> dict[str, Any]:
        """Made once for each rule: what is another function, or another mask, is compiled anew."""
        assert rule.bias is not None
        weight_HM, middle = rule.bias.weight_HM, rule.bias.reach - 1
        table_HC = weight_HM[:, rule.bias.bin_C.long()]
        if weight_HM.is_leaf:
            # Timed again and again: the table has no graph behind it that a first backward would free.
            table_HC = table_HC.detach().requires_grad_()
        if rule.queries is None:

            def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                return score + table_HC[h, j - i + middle]

            return {"score_mod": biased}
        assert rule.keys is not None
        assert rule.codes is not None
        query_at, key_at = rule.queries.at_BL, rule.keys.at_BL
        code, limit, own = rule.codes.key_BS, rule.codes.limit_BQ, rule.codes.own_BQ

        def biased_by_row(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score + table_HC[h, key_at[b, j] - query_at[b, i] + middle]

        def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return ((code[b, j] % 2 == 0) & (code[b, j] <= limit[b, i])) | (code[b, j] == own[b, i])

        mask = create_block_mask(seen, len(code), None, call.stop - call.start, call.keys, device=code.device)
        return {"score_mod": biased_by_row, "block_mask": mask}

    def attend(q: Tensor, k: Tensor, v: Tensor, calls: Sequence[Call], dropout: float) -> Tensor:
        if dropout:
            raise ValueError("FlexAttention knows no dropout")
        made = []
        for call in calls:
            rule = call.rule
            assert rule is not None
            if id(rule) not in known:
                known[id(rule)] = (rule, options_of(call, rule))
            made.append(compiled(*heads_first(q, k, v, call), **known[id(rule)][1]).transpose(1, 2))
        return torch.cat(made, 1)

    return attend


def heads_first(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """The call's queries, keys and values as torch's kernels want them."""
    keys = slice(call.keys)
    return q[:, call.start : call.stop].transpose(1, 2), k[:, keys].transpose(1, 2), v[:, keys].transpose(1, 2)


def flash_without_bias(q: Tensor, k: Tensor, v: Tensor, calls: Sequence[Call], dropout: float) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        made = [scaled_dot_product_attention(*heads_first(q, k, v, call), dropout_p=dropout) for call in calls]
    return torch.cat(made, 2).transpose(1, 2)


def contestants(device: torch.device) -> dict[str, tuple[bool, Attend]]:
    """By name: whether its calls are structured, and the kernel."""
    if device.type == "cpu":
        return {"plain": (False, plain.attend), "sdpa": (False, sdpa.attend)}
    from pmlm_core.model.attention import tiled

    return {
        "sdpa": (False, sdpa.attend),
        "triton": (True, tiled.attend),
        "flex": (True, flex()),
        "flash, no bias": (True, flash_without_bias),
    }


def error(problem: Problem, structured: bool, attend: Attend) -> float:
    """Largest error of output and gradients."""
    small = replace(problem, rows=2, dropout=0.0)
    results = []
    for exact in (True, False):
        dtype = torch.float64 if exact else problem.dtype
        fused = small.fused.to(problem.dtype).to(dtype)
        q, k, v = (x.detach().requires_grad_() for x in fused[:, :, :3].unbind(2))
        small.relative.weight.grad = None
        calls = small.calls(structured or exact, dtype)
        if exact:
            calls = [reference.dense(call, 2) for call in calls]
        out = (reference.attend if exact else attend)(q, k, v, calls, 0.0)
        out.backward(fused[:, :, 3])
        results.append([out, q.grad, k.grad, v.grad, small.relative.weight.grad])
    pairs = zip(*results, strict=True)
    return max(float(((got.double() - want).abs().max() / want.abs().max()).detach()) for want, got in pairs)


def peak(run: Callable[[], object], device: torch.device) -> str:
    """Memory at its peak beyond what lies there already, MiB."""
    if device.type != "cuda":
        return "-"
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}"


def compare(problem: Problem, args: argparse.Namespace, report: Report) -> None:
    running: dict[str, tuple[bool, Attend]] = {}
    errors: dict[str, str] = {}
    for name, (structured, attend) in contestants(problem.device).items():
        try:
            if "no bias" in name:
                errors[name] = "-"
            else:
                errors[name] = f"{error(problem, structured, attend):.1e}"
            work(problem, structured, attend, slice(None), True)()
            running[name] = (structured, attend)
        except Exception as failure:  # one that cannot run must not keep the others from running
            report.note(f"{name} is left out: {type(failure).__name__}: {[*str(failure).splitlines(), ''][0]}")
    for title, part in (("A and B", slice(None)), ("A", slice(0, 1)), ("B", slice(1, 2))):
        calls = problem.calls(True, problem.dtype)[part]
        rows = []
        works = {name: work(problem, *each, part, True) for name, each in running.items()}
        ahead = {name: work(problem, *each, part, False) for name, each in running.items()}
        for run in [*works.values(), *ahead.values()]:
            run()
        both, forward = times(works, args, problem.device), times(ahead, args, problem.device)
        for name in running:
            seconds, fast = statistics.median(both[name]), statistics.median(forward[name])
            rows.append(
                [
                    name,
                    f"{fast * 1e3:.3f}",
                    f"{problem.flops(calls, FORWARD) / fast / 1e12:.3g}",
                    f"{seconds * 1e3:.3f}",
                    f"{min(both[name]) * 1e3:.3f}-{max(both[name]) * 1e3:.3f}",
                    f"{problem.flops(calls, FORWARD + BACKWARD) / seconds / 1e12:.3g}",
                    peak(works[name], problem.device),
                    errors[name],
                ]
            )
        report.table(
            f"Call {title}" if len(title) == 1 else f"Calls {title}",
            ("kernel", "fwd ms", "TF/s", "both ms", "least-most", "TF/s", "MiB", "error"),
            rows,
        )
    if problem.device.type == "cuda" and "triton" in running:
        by_kernel(work(problem, *running["triton"], slice(None), True), report, "Triton, calls A and B")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, help="rows of the batch; 64 on a GPU, 2 on a CPU")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=64, help="head size")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, help="runs in each round; 10 on a GPU, 1 on a CPU")
    parser.add_argument("--sweep_tiles", action="store_true")
    parser.add_argument("--sweep_seconds", type=float, default=360)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    args.rows = args.rows or (64 if gpu else 2)
    args.repeats = args.repeats or (10 if gpu else 1)
    dtype = getattr(torch, args.dtype)
    problem = Problem(args.rows, args.context, args.heads, args.width, dtype, device, args.dropout)
    size = f"{args.rows} rows of {args.context} + {problem.total - args.context}, {args.heads} heads of {args.width}"
    report = Report(
        "attention",
        f"Attention: {size}, {args.dtype}, dropout {args.dropout}",
        "Calls A and B of one layer with a learned relative bias; wall time, the median of the rounds; 2 products "
        "forward and 5 backward are counted. Peak memory is beyond inputs, bias and what else lies there.",
    )
    if args.sweep_tiles and gpu:
        sweep(problem, args, report)
    compare(problem, args, report)
    report.finish(args.save)


if __name__ == "__main__":
    main()
