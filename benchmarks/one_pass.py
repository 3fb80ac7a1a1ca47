"""The PAR loss in one forward pass beside one cloze pass per factorization step, with equal losses, in one run.

    python benchmarks/one_pass.py [--preset mini] [--rows 4] [--length 512] [--save]

A cloze pass for step i sees the context, the true tokens of the steps before it, and the `[P]` of step i, and gives the
loss of that step; as many passes as steps make up the PAR loss. Both ways run the same layers, forward and backward,
without dropout, in bf16 for time and in fp32 for the comparison of losses. The one pass gives the AE loss besides.
On a CPU, processor time of one thread; on a GPU, wall time, both by SDPA, for a cloze pass is written with dense
biases.
"""

import argparse
import os
import time
from collections.abc import Callable

import torch
from pretrain_step import batch_of, dropouts
from race import Ratio, medians, race
from report import Report, options
from torch import Tensor

from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.attention.interface import Call
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.device import product_dtype
from pmlm_core.model.presets import preset
from pmlm_core.model.pseudo import CONTEXT, PADDING, PSEUDO, TRUE, visible


def left(chosen_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of the chosen slots of each row, flush left, [B, most], and which of them are real."""
    most = int(chosen_BK.sum(1).max())
    order = torch.argsort(chosen_BK.to(torch.uint8), dim=1, descending=True, stable=True)[:, :most]
    return order, chosen_BK.gather(1, order)


def cloze_pass(model: PmlmForPreTraining, batch: dict[str, Tensor], step: int) -> Tensor:
    """The summed loss of one factorization step of the rows that have it."""
    has = (batch["pseudo_steps"] == step).any(1)
    rows = {name: tensor[has] for name, tensor in batch.items()}
    steps_BK, labels_BK, positions_BK = rows["pseudo_steps"], rows["labels"], rows["pseudo_position_ids"]
    now, now_real = left(steps_BK == step)
    past, past_real = left((steps_BK > 0) & (steps_BK < step))
    count, n = rows["input_ids"].shape

    def part(values_BK: Tensor) -> Tensor:
        return torch.cat([values_BK.gather(1, now), values_BK.gather(1, past)], 1)

    ids = part(labels_BK.clamp(min=0))
    ids[:, : now.shape[1]] = model.config.pseudo_token_id
    appended = part(positions_BK)
    positions = torch.cat([torch.arange(n, device=ids.device).expand(count, n), appended], 1)
    types = torch.cat([rows["token_type_ids"], rows["token_type_ids"].gather(1, appended)], 1)
    real = torch.cat([now_real, past_real], 1)
    kinds = torch.cat([torch.full_like(now, PSEUDO), torch.full_like(past, TRUE)], 1) * real + PADDING * ~real
    kinds = torch.cat([torch.full_like(positions[:, :n], CONTEXT), kinds], 1)
    all_steps = torch.cat([torch.zeros_like(positions[:, :n]), part(steps_BK)], 1)

    core = model.pmlm
    assert core.rel_pos_bias is not None
    hidden = core.embeddings(torch.cat([rows["input_ids"], ids], 1), positions, types)
    square = core.rel_pos_bias.square(n).to(product_dtype(hidden))
    hidden_keys = ~visible(kinds[:, n:, None], all_steps[:, n:, None], kinds[:, None], all_steps[:, None])
    bias = square[:, positions[:, n:, None], positions[:, None, :]].transpose(0, 1)
    bias = bias.masked_fill(hidden_keys[:, None], torch.finfo(bias.dtype).min)
    calls = (Call(0, n, n, square[None]), Call(n, positions.shape[1], positions.shape[1], bias))
    for layer in core.layers:
        hidden = layer(hidden, calls)
    labels = labels_BK.gather(1, now).masked_fill(~now_real, IGNORED)
    return model.head.loss(hidden[:, n : n + now.shape[1]], core.embeddings.word.weight, labels)[0]


def by_cloze(model: PmlmForPreTraining, batch: dict[str, Tensor], backward: bool) -> float:
    """The PAR loss step by step."""
    total = 0.0
    for step in range(1, int(batch["pseudo_steps"].max()) + 1):
        loss = cloze_pass(model, batch, step)
        if backward:
            loss.backward()
        total += loss.item()
    return total


def one_pass(model: PmlmForPreTraining, batch: dict[str, Tensor], backward: bool) -> float:
    """The PAR loss at once, and the AE loss with it."""
    output = model(**batch)
    if backward:
        (output.ae_loss_sum + output.par_loss_sum).backward()
    return output.par_loss_sum.item()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args: argparse.Namespace = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        os.environ["PMLM_ATTENTION"] = "sdpa"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch = batch_of(args.rows, args.length, args.vocab, device)
    config = PmlmConfig(vocab_size=args.vocab, **dropouts(0.0), **vars(preset(args.preset)))
    model = PmlmForPreTraining(config).to(device)  # type: ignore[arg-type]
    report = Report("one-pass", "PAR in one pass beside one cloze pass per step", (__doc__ or "").split("\n\n")[2])
    with torch.no_grad():
        losses = [way(model, batch, False) for way in (one_pass, by_cloze)]

    def timed(way: Callable[[PmlmForPreTraining, dict[str, Tensor], bool], float]) -> Callable[[], None]:
        def run() -> None:
            model.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                way(model, batch, True)
            if on_gpu:
                torch.cuda.synchronize()

        return run

    ways = {"AE and PAR in one pass": timed(one_pass), "PAR, a cloze pass per step": timed(by_cloze)}
    samples = race(ways, args.rounds, time.perf_counter if on_gpu else time.process_time, warm_up=True)
    steps = batch["pseudo_steps"].max(1).values
    report.table(
        f"{args.preset}, {args.rows} x {args.length}, {steps.float().mean():.0f} steps a row (at most {steps.max()}), "
        f"bf16, {args.device}",
        ("way", "ms", "PAR loss, fp32", "time beside one pass"),
        [
            (name, f"{seconds * 1e3:.1f}", f"{loss:.4f}", Ratio.of(samples, name, "AE and PAR in one pass"))
            for (name, seconds), loss in zip(medians(samples).items(), losses, strict=True)
        ],
    )
    report.finish(args.save)


if __name__ == "__main__":
    main()
