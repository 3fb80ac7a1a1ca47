"""A pre-training step beside Hugging Face's BERT: same size, batch, masked slots, precision and optimizer, in one run.

    python benchmarks/pretrain_step.py [--preset mini base] [--vocab 30522] [--compiled] [--save]

Ours is the product's own training step (loss, backward, gradient norm, fused AdamW) for two objectives in one pass and
for AE alone. The peer is `BertForMaskedLM` with SDPA as it comes, with fused AdamW: forward, backward, update. "slots"
is the peer with its output layer on the masked slots only, which its own code does not do; "padded" (on a GPU) is the
peer with a vocabulary rounded up to a multiple of 64, as our output layer rounds it by itself, for other sizes miss the
chip's fast products; "compiled" is with `torch.compile`: of ours the parts around attention, as the recipes'
`torch_compile` has it, of the peer all of it; "graphs" is with CUDA graphs, as the recipes' `cuda_graphs` has it, of
the peer by `torch.compile`'s mode "reduce-overhead".
Tokens are source tokens: the appended part and the slots are extra work.

On a CPU, processor time of one thread by default; on a GPU, wall time of four steps in a row, the memory at its peak,
and with `--profile` the kernels that our step's time goes to. The share of the peak is that of the products a step has
to do, recomputed ones not counted, of what one large product of random numbers reaches in the same run.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from sys import path
from typing import Any

import torch
from kernels import by_kernel
from race import Ratio, Samples, medians, race
from report import Report, options
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.collate import collate
from pmlm_core.model.compiling import compile_parts
from pmlm_core.model.cost import flops_per_step, max_predictions
from pmlm_core.model.objectives import Objective
from pmlm_core.model.presets import preset
from pmlm_core.model.traffic import mean_predictions
from pmlm_core.training.graphs import record
from pmlm_core.training.optimizer import build_adamw
from pmlm_core.training.peak import Peak, peak
from pmlm_core.training.pretraining import count_predictions, pretraining_task
from pmlm_core.training.step import Precision, train_step

path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "model"))
from model_makers import random_rows

ADAM: dict[str, Any] = {"learning_rate": 1e-4, "betas": (0.9, 0.98), "epsilon": 1e-6, "weight_decay": 0.01}
Step = Callable[[], object]
SIDE = 8192
IN_A_ROW = 4
"""Steps of a round on a GPU, which is waited for after the last, as training never waits for a whole step."""


def batch_of(rows: int, length: int, vocab: int, device: torch.device) -> dict[str, Tensor]:
    """A full batch of random tokens, masked by Algorithm 1 at 15 %."""
    batch = collate(
        random_rows([length] * rows, vocab_size=vocab, mask_prob=0.15),
        objective="AE+PAR",
        max_length=length,
        max_predictions=max_predictions(length),
        special_ids=SpecialIds(),
    )
    del batch["attention_mask"]  # nothing is padded
    return {name: tensor.to(device) for name, tensor in batch.items()}


def dropouts(p: float) -> dict[str, Any]:
    return {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}


def ours(
    objective: str,
    name: str,
    args: argparse.Namespace,
    batch: dict[str, Tensor],
    precision: Precision,
    form: str = "",
) -> Step:
    """The product's step."""
    config = PmlmConfig(vocab_size=args.vocab, objective=objective, **dropouts(args.dropout), **vars(preset(name)))
    model = PmlmForPreTraining(config).to(precision.device).train()  # type: ignore[arg-type]
    optimizer = build_adamw(model, **ADAM)
    task, counted = pretraining_task(Objective(objective)), count_predictions(batch)
    if "compiled" in form:
        compile_parts(model)
    if "graphs" in form:
        record(model, batch, precision)
    return lambda: train_step(
        model, optimizer, [(0, batch)], task, step=0, seed=0, precision=precision, counted=counted
    )


def bert(name: str, args: argparse.Namespace, batch: dict[str, Tensor], precision: Precision, form: str) -> Step:
    """The peer's step."""
    vocab = -(-args.vocab // 64) * 64 if "padded" in form else args.vocab
    shape = {**vars(preset(name)), **dropouts(args.dropout), "attn_implementation": "sdpa"}
    model = BertForMaskedLM(BertConfig(vocab_size=vocab, **shape)).to(precision.device).train()  # type: ignore[arg-type]
    optimizer = build_adamw(model, **ADAM)
    used = batch["labels"] != -100
    rows = torch.arange(len(used), device=used.device)[:, None].expand_as(used)[used]
    positions, slot_labels = batch["pseudo_position_ids"][used], batch["labels"][used]
    labels = torch.full_like(batch["input_ids"], -100)
    labels[rows, positions] = slot_labels
    inputs = {"input_ids": batch["input_ids"], "token_type_ids": batch["token_type_ids"]}

    def loss() -> Tensor:
        if "slots" not in form:
            return model(**inputs, labels=labels).loss
        states = model.bert(**inputs).last_hidden_state
        return torch.nn.functional.cross_entropy(model.cls(states[rows, positions]), slot_labels)

    forward = loss
    if "compiled" in form:
        forward = torch.compile(loss, mode="reduce-overhead" if "graphs" in form else None)

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with precision.autocast():
            value = forward()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def operations(step: Step, contestant: str, name: str, args: argparse.Namespace, batch: dict[str, Tensor]) -> int:
    """Floating-point operations of the matrix products of a step.

    Counted as they are executed, except those of our step on a GPU, whose attention no counter sees: by the cost model,
    which tests hold against the counter.
    """
    if args.device == "cuda" and contestant.startswith("pmlm"):
        # Slots that are padding are computed, and count for nothing.
        rows, slots = len(batch["labels"]), round(mean_predictions(args.length))
        aim = "AE+PAR" if "AE+PAR" in contestant else "AE"
        size = {"vocab_size": args.vocab, "rows": rows, "context": args.length, "slots": slots}
        return flops_per_step(preset(name), objective=aim, **size)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def random_product(device: torch.device) -> float:
    """Operations a second of a large bf16 product of random numbers: ones and zeros are multiplied faster."""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(8):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(5):
            a @ b
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 5e3)
    return 2.0 * SIDE**3 / statistics.median(seconds[2:])


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--preset", nargs="+", default=["mini", "base"])
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 4], help="batch of each preset")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=30522)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="both with torch.compile too")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these rows of the table alone, by name")
    parser.add_argument("--profile", action="store_true", help="on a GPU: our step kernel by kernel")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    precision = Precision(torch.device(args.device), args.precision)
    report = Report(
        "pretrain-step" + ("-gpu" if args.device == "cuda" else ""),
        "A pre-training step beside BertForMaskedLM",
        " ".join((__doc__ or "").split("\n\n")[2].split()),
    )
    top = peak(precision.device, args.precision)
    if args.device == "cuda":
        top = Peak(random_product(precision.device), f"a bf16 product of random numbers, {SIDE} a side, in this run")
    report.note(f"Peak: {top.rate / 1e12:.3f} TFLOP/s, {top.source}.")
    for at, name in enumerate(args.preset):
        compare(report, name, args.rows[min(at, len(args.rows) - 1)], args, precision, top.rate)
    report.finish(args.save)


def contestants(
    name: str, args: argparse.Namespace, batch: dict[str, Tensor], precision: Precision
) -> dict[str, Callable[[], Step]]:
    """What makes each step, by name."""
    on_gpu = args.device == "cuda"
    forms = ["", *[", compiled"] * args.compiled, *[", compiled, graphs"] * (args.compiled and on_gpu)]
    made: dict[str, Callable[[], Step]] = {}
    for objective, form in product(("AE+PAR", "AE"), forms):
        made[f"pmlm {objective}{form}"] = partial(ours, objective, name, args, batch, precision, form)
    for slots, padded, form in product(("", ", slots"), ("", ", padded") if on_gpu else ("",), forms):
        made[f"BERT{slots}{padded}{form}"] = partial(bert, name, args, batch, precision, slots + padded + form)
    return made


def compare(report: Report, name: str, rows: int, args: argparse.Namespace, precision: Precision, rate: float) -> None:
    """The table of one size."""
    torch.manual_seed(0)
    on_gpu = precision.device.type == "cuda"
    batch = batch_of(rows, args.length, args.vocab, precision.device)
    steps: dict[str, Step] = {}
    work: dict[str, int] = {}
    memory: dict[str, str] = {}
    for contestant, make in contestants(name, args, batch, precision).items():
        if args.only and contestant not in args.only:
            continue
        if on_gpu:
            torch.cuda.empty_cache()
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        steps[contestant] = step = make()
        step()
        memory[contestant] = f"{(torch.cuda.max_memory_allocated() - held) / 1e9:.2f}" if on_gpu else "-"
        plain = contestant.split(", compiled")[0]
        work[contestant] = work[plain] if plain in work else operations(step, contestant, name, args, batch)
    if on_gpu and args.profile:
        for contestant, step in steps.items():
            if contestant.startswith("pmlm AE+PAR"):
                by_kernel(step, report, contestant, shown=30)

    def waited(step: Step) -> Step:
        def run() -> None:
            for _ in range(IN_A_ROW):
                step()
            torch.cuda.synchronize()

        return run

    racers = {n: waited(step) for n, step in steps.items()} if on_gpu else steps
    samples = race(racers, args.rounds, time.perf_counter if on_gpu else time.process_time, warm_up=True)
    if on_gpu:
        samples = {n: [seconds / IN_A_ROW for seconds in rounds] for n, rounds in samples.items()}
    seconds, tokens = medians(samples), rows * args.length
    report.table(
        f"{name}, {rows} x {args.length}, vocabulary {args.vocab}, {args.precision}, dropout {args.dropout}, "
        f"medians of {args.rounds} rounds (least-largest)",
        ("step", "ms", "source tokens/s", "TFLOP", "% of peak", "GB", "tokens/s beside BERT"),
        [
            (
                n,
                f"{s * 1e3:.0f}",
                f"{tokens / s:,.0f}",
                f"{work[n] / 1e12:.3f}" if work[n] else "-",
                f"{work[n] / s / rate:.0%}" if work[n] else "-",
                memory[n],
                Ratio.of(samples, "BERT", n) if "BERT" in samples else "-",
            )
            for n, s in seconds.items()
        ],
    )
    beside(report, name, samples, work)


def beside(report: Report, name: str, samples: Samples, work: dict[str, int]) -> None:
    """Our steps beside every form of the peer's, and both objectives beside one."""
    both = [contestant for contestant in samples if contestant.startswith("pmlm AE+PAR")]
    peers = [contestant for contestant in samples if contestant.startswith("BERT")]
    if both and peers:
        rows = [(peer, *(Ratio.of(samples, peer, contestant) for contestant in both)) for peer in peers]
        report.table(f"{name}: source tokens/s beside each form of the peer", ("peer", *both), rows)
    for contestant in both:
        one = contestant.replace("AE+PAR", "AE")
        if one in samples:
            report.note(
                f"{name}: '{contestant}' takes {Ratio.of(samples, contestant, one)} of the time of '{one}'; its "
                f"products count {work[contestant] / work[one]:.2f} of AE's."
            )


if __name__ == "__main__":
    main()
