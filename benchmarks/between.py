"""What lies between a layer's matrix products on a GPU: own kernels beside torch, as it comes and compiled.

    python benchmarks/between.py [--rows 44032] [--sweep] [--save]

Forward and backward of LayerNorm(residual + dropout(x + bias)) over rows of the hidden size, of GELU(x + bias) over
rows of the inner size, and of cross-entropy over rows of words. The share of a copy's speed is that at which the bytes
go through memory that any way has to read and write, each once; so much a way that reads something again cannot reach.

`--sweep` tries other sizes of the kernels, and names the best of this GPU.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from race import Ratio, Samples, medians, race
from report import Report, options
from torch import Tensor
from torch.nn import functional as F

from pmlm_core.model.dropout import draw_products, drop_by_products

Work = Callable[[], object]
P = 0.1
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=64 * 688)
    parser.add_argument("--slots", type=int, default=8192, help="rows of logits")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--inner", type=int, default=3072)
    parser.add_argument("--words", type=int, default=30522)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sweep", action="store_true")
    args = parser.parse_args()
    if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("This measures kernels of a GPU, and torch sees none; pretrain_step.py measures on CPUs, too.")
    report = Report(
        "between",
        f"Between the products: {args.rows} rows of {args.width} and {args.inner}, {args.slots} of {args.words} words",
        " ".join((__doc__ or "").split("\n\n")[2].split()),
    )
    rate = copy_rate()
    report.note(f"A copy reads and writes {rate / 1e12:.2f} TB/s.")
    for title, ways, nbytes in (norm(args), gelu(args), cross_entropy(args)):
        samples = race({name: timed(work) for name, work in ways.items()}, args.rounds, clock, warm_up=True)
        report.table(
            f"{title}, forward and backward: medians of {args.rounds} rounds of {REPEATS} (least-largest)",
            ("way", "ms", "share of a copy's speed", "beside torch"),
            [row(name, seconds, samples, nbytes / rate) for name, seconds in medians(samples).items()],
        )
    if args.sweep:
        sweep(args, report)
    report.finish(args.save)


REPEATS = 10


def clock() -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Work) -> Work:
    """As a graph, so that the host's time is none of it."""
    if DEVICE == "cpu":
        return lambda: [work() for _ in range(REPEATS)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            work()
    return graph.replay


def row(name: str, seconds: float, samples: Samples, least: float) -> tuple[object, ...]:
    once = seconds / REPEATS
    return name, f"{once * 1e3:.3f}", f"{least / once:.0%}", Ratio.of(samples, "torch", name)


def copy_rate() -> float:
    """Bytes a second of a large copy, those read and those written."""
    given = torch.empty(2**28, dtype=torch.uint8, device=DEVICE)
    made = torch.empty_like(given)
    copy = timed(lambda: made.copy_(given))
    seconds = []
    for _ in range(5):
        begun = clock()
        copy()
        seconds.append(clock() - begun)
    return REPEATS * 2 * given.nbytes / statistics.median(seconds)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(torch.bfloat16)


def norm(args: argparse.Namespace) -> tuple[str, dict[str, Work], int]:
    from pmlm_core.model.residual_tiled import add_and_norm

    x, residual, one, two = (random(1, args.rows, args.width) for _ in range(4))
    drawn = draw_products(x, 1)[0]
    vectors = [torch.randn(args.width, device=DEVICE).requires_grad_() for _ in range(3)]
    inputs = [x.requires_grad_(), residual.requires_grad_(), *vectors]

    def ours(x: Tensor, residual: Tensor, bias: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        return add_and_norm(x, bias, residual, weight, shift, 1e-5, P, drawn, torch.bfloat16)

    def torch_s(x: Tensor, residual: Tensor, bias: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        total = residual + drop_by_products(x + bias.to(x.dtype), P, drawn)
        made = F.layer_norm(total.float(), (args.width,), weight, shift, 1e-5).to(torch.bfloat16)
        return made, made.view_as(made)

    # Forward: x, residual, output and what is kept; backward: two gradients, what was kept, and two gradients more.
    return "LayerNorm", ways(ours, torch_s, inputs, [one, two]), 9 * x.nbytes


def gelu(args: argparse.Namespace) -> tuple[str, dict[str, Work], int]:
    from pmlm_core.model.activation_tiled import bias_gelu

    x, given = random(args.rows, args.inner), random(args.rows, args.inner)
    bias = torch.randn(args.inner, device=DEVICE).requires_grad_()

    def ours(x: Tensor, bias: Tensor) -> tuple[Tensor]:
        return (bias_gelu(x, bias),)

    def torch_s(x: Tensor, bias: Tensor) -> tuple[Tensor]:
        return (F.gelu(x + bias.to(x.dtype)),)

    return "GELU", ways(ours, torch_s, [x.requires_grad_(), bias], [given]), 5 * x.nbytes


def cross_entropy(args: argparse.Namespace) -> tuple[str, dict[str, Work], int]:
    from pmlm_core.model.cross_entropy_tiled import cross_entropy_

    room = -(-args.words // 64) * 64
    logits, labels = random(args.slots, room), torch.randint(0, args.words, (args.slots,), device=DEVICE)

    def torch_s(x: Tensor) -> tuple[Tensor]:
        return (F.cross_entropy(x[:, : args.words].float(), labels, reduction="sum"),)

    peers = ways(None, torch_s, [logits.detach().clone().requires_grad_()], [torch.ones((), device=DEVICE)])
    # In place: after the first time it is the cross-entropy of gradients, which takes as long.
    ours = partial(cross_entropy_, logits[:, : args.words], labels, -100, 0.0)
    return "Cross-entropy (ours sums its gradients by column, too)", {"own kernels": ours, **peers}, 3 * logits.nbytes


def ways(
    ours: Callable[..., Any] | None, torch_s: Callable[..., Any], inputs: list[Tensor], gradients: list[Tensor]
) -> dict[str, Work]:
    """Ours, torch's operations, and these compiled: forward and backward each."""

    def both(work: Callable[..., Any]) -> Work:
        return lambda: torch.autograd.grad(work(*inputs), inputs, gradients)

    made = {} if ours is None else {"own kernels": both(ours)}
    return {**made, "torch": both(torch_s), "torch.compile": both(torch.compile(torch_s, dynamic=False))}


def sweep(args: argparse.Namespace, report: Report) -> None:
    """The fastest sizes of each kernel, forward and backward together."""
    from pmlm_core.model import activation_tiled, cross_entropy_tiled, residual_tiled

    programs = [{"forward": f, "backward": b} for f in (6, 8, 12, 16) for b in (4, 6, 8, 12)]
    tried: list[tuple[Any, Any, dict[str, list[Any]]]] = [
        (norm, residual_tiled, {"PER_THREAD": [8, 16, 32], "STAGES": [1, 2, 3, 4], "PROGRAMS": programs}),
        (gelu, activation_tiled, {"TILE": [1024, 2048, 4096], "WARPS": [4, 8], "PROGRAMS": [4, 6, 8, 12, 16]}),
        (cross_entropy, cross_entropy_tiled, {"BLOCK": [1024, 2048, 4096, 8192]}),
    ]
    for make, module, sizes in tried:
        title, found_ways, _ = make(args)
        before = {name: getattr(module, name) for name in sizes}
        found = []
        for chosen in itertools.product(*sizes.values()):
            for name, value in zip(sizes, chosen, strict=True):
                setattr(module, name, value)
            try:
                replay = timed(found_ways["own kernels"])
                replay()
                begun = clock()
                replay()
                found.append((clock() - begun, chosen))
            except Exception as failure:  # too many registers or too much shared memory, as a rule
                print(f"{title} {chosen}: {type(failure).__name__}")
        for name, value in before.items():
            setattr(module, name, value)
        report.table(
            f"{title}: sizes ({', '.join(sizes)})",
            ("sizes", "ms"),
            [(str(chosen), f"{s / REPEATS * 1e3:.4f}") for s, chosen in sorted(found, key=lambda pair: pair[0])[:6]],
        )


if __name__ == "__main__":
    main()
