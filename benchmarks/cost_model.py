"""The formulas that `pmlm plan` reckons with beside what is measured here: predicted, measured, ratio.

    python benchmarks/cost_model.py [--blocks outputs/mini/blocks ...] [--checkpoint outputs/mini/pretrain/final]

Operations are counted by torch; bytes sent by the kernel (/proc/self/io of each of some gloo processes that train
together); bytes of blocks and of a checkpoint are those on disk. Step times are processor time of one thread, the
least of some; "from" says which measured step the prediction takes its share of the peak rate from, so that a ratio
tells how constant that share is, and nothing about a GPU. benchmarks/preprocess.py measures preprocessing.
"""

import json
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from sys import path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from loading import IDS, VIEWS, write_blocks
from pretrain_step import ADAM, batch_of, dropouts
from race import race
from report import Report, options
from torch.utils.flop_counter import FlopCounterMode

from pmlm_core.corpus.manifest import Manifest
from pmlm_core.corpus.order import batch_rows
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.collate import collate
from pmlm_core.model.cost import checkpoint_bytes, flops_per_step, max_predictions, parameters
from pmlm_core.model.objectives import Objective
from pmlm_core.model.presets import preset
from pmlm_core.model.traffic import all_reduce_bytes, block_bytes, gradient_bytes, mean_predictions, operations_sent
from pmlm_core.training.loader import Loader, Share
from pmlm_core.training.optimizer import build_adamw
from pmlm_core.training.pretraining import count_predictions, pretraining_task
from pmlm_core.training.step import Precision, train_step
from pmlm_core.training.together import together

path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "model"))
from operations_counted import operations_counted

VOCAB, LENGTH, CPU = 8000, 256, torch.device("cpu")
Row = tuple[str, str, str, str]


def row(what: str, predicted: float, measured: float, unit: str) -> Row:
    return what, f"{predicted:,.5g} {unit}", f"{measured:,.5g} {unit}", f"{predicted / measured:.3f}"


def model_of(name: str) -> PmlmForPreTraining:
    return PmlmForPreTraining(PmlmConfig(vocab_size=VOCAB, **dropouts(0.0), **vars(preset(name)))).train()


def operations(name: str, rows: int) -> float:
    slots = round(mean_predictions(LENGTH))
    return flops_per_step(preset(name), vocab_size=VOCAB, rows=rows, context=LENGTH, slots=slots)


def counted_operations() -> list[Row]:
    found = []
    for name in ("tiny", "mini"):
        with FlopCounterMode(display=False) as counter:
            model_of(name)(**batch_of(8, LENGTH, VOCAB, CPU)).loss.backward()
        found.append(row(f"FLOP of a step, {name}, 8 rows", operations(name, 8), counter.get_total_flops(), ""))
    sent = operations_sent(preset("base"), "AE+PAR")
    found.append(row("operations sent a pass, base", sent, operations_counted(12, "AE+PAR"), ""))
    return found


def blocks_on_disk(folder: str) -> list[Row]:
    manifest = Manifest.load(folder)
    entries, rows = manifest.splits["train"], manifest.rows("train")
    settings = {name: manifest.config[name] for name in ("mask_prob", "block_prob", "min_block", "max_block")}
    slots = mean_predictions(manifest.max_length, **settings)
    told = f"{folder}, {manifest.views} views of {manifest.max_length}"
    predicted = block_bytes(manifest.max_length, slots, manifest.vocab_size, manifest.views)
    return [
        row(f"predicted tokens a row, {told}", slots, sum(e.masked_tokens for e in entries) / rows, ""),
        row(f"bytes a row, {told}", predicted, sum(e.bytes for e in entries) / rows, "B"),
        row(f"bytes a token, {told}", predicted / manifest.max_length, sum(e.bytes for e in entries)
            / manifest.tokens("train"), "B"),
    ]  # fmt: skip


def checkpoint_on_disk(folder: str) -> Row:
    saved = json.loads((Path(folder) / "config.json").read_text())
    size = PmlmConfig(**{name: saved[name] for name in vars(preset("tiny"))})
    count = parameters(size, saved["vocab_size"], max_position_embeddings=saved["max_position_embeddings"])
    measured = sum(file.stat().st_size for file in Path(folder).iterdir())
    return row(f"checkpoint, {folder}", checkpoint_bytes(count) / 1e6, measured / 1e6, "MB")


def sent_together(workers: int) -> Row:
    """Bytes a worker sends in a step, the mean of some steps."""
    with socket.socket() as found, tempfile.TemporaryDirectory() as folder:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
        found.close()
        mp.spawn(_train_together, (workers, port, folder), nprocs=workers)
        measured = sum(float(Path(folder, str(rank)).read_text()) for rank in range(workers)) / workers
    count = parameters(preset("tiny"), VOCAB)
    return row(
        f"sent a step by each of {workers} workers, tiny",
        all_reduce_bytes(gradient_bytes(count), workers) / 1e6,
        measured / 1e6,
        "MB",
    )


def _train_together(rank: int, workers: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    precision = Precision(CPU, "fp32")
    model = together(model_of("tiny"), precision, workers)
    optimizer, batch = build_adamw(model, **ADAM), batch_of(2, LENGTH, VOCAB, CPU)
    task, steps, before = pretraining_task(Objective.AE_PAR), 4, 0
    for step in range(steps + 2):
        if step == 2:  # the first two settle buckets
            before = _written()
        train_step(model, optimizer, [(rank, batch)], task, step=step, seed=0, precision=precision)
    Path(folder, str(rank)).write_text(str((_written() - before) / steps))
    dist.barrier()


def _written() -> int:
    """Bytes this process has written, sockets included."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def step_times(rounds: int) -> list[Row]:
    """Each step from another's share of the peak: the peak itself cancels out."""
    torch.set_num_threads(1)
    cases = (("tiny", 8), ("mini", 8), ("mini", 4), ("small", 8))
    # In turns, so that what else the machine does falls on all of them.
    samples = race({f"{name} {rows}": _step(name, rows) for name, rows in cases}, rounds, warm_up=True)
    seconds = {case: min(samples[f"{case[0]} {case[1]}"]) for case in cases}
    found = []
    for known, wanted in ((("tiny", 8), ("mini", 8)), (("mini", 4), ("mini", 8)), (("mini", 8), ("small", 8))):
        predicted = seconds[known] * operations(*wanted) / operations(*known)
        what = f"step of {wanted[0]}, {wanted[1]} rows, from {known[0]}, {known[1]} rows"
        found.append(row(what, predicted * 1e3, seconds[wanted] * 1e3, "ms"))
    return found


def _step(name: str, rows: int) -> Callable[[], object]:
    precision, task = Precision(CPU, "fp32"), pretraining_task(Objective.AE_PAR)
    model, batch = model_of(name), batch_of(rows, LENGTH, VOCAB, CPU)
    optimizer, counted = build_adamw(model, **ADAM), count_predictions(batch)
    return lambda: train_step(
        model, optimizer, [(0, batch)], task, step=0, seed=0, precision=precision, counted=counted
    )


def loader_times(report: Report) -> None:
    """Processor time of the loader for a row of its own and for every row of the global batch."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = write_blocks(folder, 512, 30522)

        def prepare(batch: int, micro: int, world: int) -> float:
            loader = Loader(
                lambda step: batch_rows(len(blocks), batch, 0, step, VIEWS),
                lambda rows, views: collate(
                    blocks.rows(rows, views),
                    objective="AE+PAR",
                    max_length=512,
                    max_predictions=max_predictions(512),
                    special_ids=IDS,
                ),
                Share(0, world, batch, micro),
                first_step=0,
                max_steps=100,
                device=CPU,
            )
            loader.prepare(0)
            taken = []
            for step in range(30):
                begun = time.thread_time()
                loader.prepare(step)
                taken.append(time.thread_time() - begun)
            return min(taken)

        own, many, few = prepare(960, 32, 1), prepare(7680, 30, 256), prepare(30, 30, 1)
    report.note(
        f"The loader takes {own / 960 * 1e6:.1f} us for a row of its own (512 tokens), and "
        f"{(many - few) / (7680 - 30) * 1e6:.2f} us for each row of the global batch."
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--blocks", nargs="*", default=[])
    parser.add_argument("--checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    report = Report("cost-model", "The cost model beside measurements", (__doc__ or "").split("\n\n")[2])
    rows = counted_operations()
    for folder in args.blocks:
        rows += blocks_on_disk(folder)
    if args.checkpoint:
        rows.append(checkpoint_on_disk(args.checkpoint))
    rows += [sent_together(2), sent_together(3)]
    rows += step_times(args.rounds)
    report.table("the cost model", ("what", "predicted", "measured", "ratio"), rows)
    loader_times(report)
    report.finish(args.save)


if __name__ == "__main__":
    main()
