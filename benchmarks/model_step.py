"""A pre-training step beside Hugging Face's BERT, and the attention kernels beside each other, in one run on one core.

    python benchmarks/model_step.py [--preset mini] [--vocab 8192] [--dropout 0.0] [--repeats 5]

Prints processor time (not wall time, so that a busy machine does not spoil it); the contestants take turns within each
round and the best round of each counts. Tokens are source tokens: the appended part and the slots are extra work.
BERT is trained as a masked language model with its output layer on the masked slots only, which is how it is fastest.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from race import best as least
from race import race
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.attention.interface import Call, kernels
from pmlm_core.model.collate import collate
from pmlm_core.model.cost import flops_per_step, max_predictions
from pmlm_core.model.presets import preset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "model"))
from model_makers import random_rows

SHAPES = ((16, 128), (8, 512))


def warm_race(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least processor seconds of each; all run once beforehand."""
    return least(race(contestants, repeats, warm_up=True))


def batch_of(rows: int, length: int, vocab: int, objective: str) -> dict[str, Tensor]:
    made = random_rows([length] * rows, vocab_size=vocab, mask_prob=0.15)
    return collate(
        made,
        objective=objective,
        max_length=length,
        max_predictions=max_predictions(length),
        special_ids=SpecialIds(),
    )


def ours(objective: str, args: argparse.Namespace, batch: dict[str, Tensor]) -> Callable[[], object]:
    config = PmlmConfig(
        vocab_size=args.vocab,
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.dropout,
        objective=objective,
        **vars(preset(args.preset)),
    )
    model = PmlmForPreTraining(config).train()

    def step() -> None:
        model.zero_grad()
        model(**batch).loss.backward()

    return step


def bert(implementation: str, args: argparse.Namespace, batch: dict[str, Tensor]) -> Callable[[], object]:
    config = BertConfig(
        vocab_size=args.vocab,
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.dropout,
        attn_implementation=implementation,
        **vars(preset(args.preset)),
    )
    model = BertForMaskedLM(config).train()
    used = batch["labels"] != -100
    rows = torch.arange(len(used))[:, None].expand_as(used)[used]
    positions, labels = batch["pseudo_position_ids"][used], batch["labels"][used]

    def step() -> None:
        model.zero_grad()
        states = model.bert(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"]).last_hidden_state
        logits = model.cls(states[rows, positions])
        torch.nn.functional.cross_entropy(logits, labels).backward()

    return step


def attention(name: str, rows: int, length: int, heads: int, width: int) -> Callable[[], object]:
    appended = 2 * max_predictions(length)
    total = length + appended
    qkv = torch.randn(rows, total, 3, heads, width, requires_grad=True)
    shared = torch.randn(1, heads, length, length, requires_grad=True)
    own = torch.randn(rows, heads, appended, total, requires_grad=True)
    calls = [Call(0, length, length, shared), Call(length, total, total, own)]

    def run() -> None:
        qkv.grad = shared.grad = own.grad = None
        out = kernels()[name](*qkv.unbind(2), calls, 0.0)
        out.backward(torch.ones_like(out))

    return run


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--preset", default="mini")
    options.add_argument("--vocab", type=int, default=8192)
    options.add_argument("--dropout", type=float, default=0.0)
    options.add_argument("--repeats", type=int, default=5)
    args = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = preset(args.preset)

    steps = Table(title=f"Forward and backward, {args.preset}, vocabulary {args.vocab}, dropout {args.dropout}, fp32")
    for column in ("rows x length", "model", "ms", "source tokens/s", "GFLOP/s", "beside BERT (sdpa)"):
        steps.add_column(column, justify="right" if column != "model" else "left")
    scores = Table(title="Attention alone, forward and backward, calls A and B with learned bias")
    for column in ("rows x length", "kernel", "ms", "beside plain"):
        scores.add_column(column, justify="right" if column != "kernel" else "left")
    for rows, length in SHAPES:
        batch = batch_of(rows, length, args.vocab, "AE+PAR")
        slots = int((batch["labels"] != -100).sum()) // rows
        contestants = {f"pmlm {o}": ours(o, args, batch) for o in ("AE+PAR", "AE")}
        contestants |= {f"BERT {i}": bert(i, args, batch) for i in ("sdpa", "eager")}
        for name, seconds in (best := warm_race(contestants, args.repeats)).items():
            rate = "-"
            if name.startswith("pmlm"):
                work = flops_per_step(
                    size, vocab_size=args.vocab, rows=rows, context=length, slots=slots, objective=name.split()[1]
                )
                rate = f"{work / seconds / 1e9:.1f}"
            steps.add_row(
                f"{rows} x {length}",
                name,
                f"{seconds * 1e3:.0f}",
                f"{rows * length / seconds:.0f}",
                rate,
                f"{best['BERT sdpa'] / seconds:.2f}",
            )
        heads = size.num_attention_heads
        alone = {n: attention(n, rows, length, heads, size.hidden_size // heads) for n in kernels()}
        for name, seconds in (best := warm_race(alone, args.repeats)).items():
            scores.add_row(f"{rows} x {length}", name, f"{seconds * 1e3:.0f}", f"{best['plain'] / seconds:.2f}")
    console = Console()
    console.print(steps)
    console.print(scores)


if __name__ == "__main__":
    main()
