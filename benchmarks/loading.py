"""What reading, corrupting and collating the rows of a step cost beside the step itself, and how long training waits.

    python benchmarks/loading.py [--preset mini] [--batch 16] [--length 512] [--steps 8] [--save]

Blocks of random tokens are written to disk, masked in four views; then the product's loader, in its background thread,
feeds the product's training step, on a GPU in its fastest form. "prepared" is the processor time of the loader's own
work for a step, "waited" the wall time that the step stood still for data.
"""

import tempfile
import time
from pathlib import Path
from sys import path

import numpy as np
import torch
from report import Report, options

from pmlm_core.corpus.blocks import BlockSet, Manifest, ShardWriter
from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.order import batch_rows
from pmlm_core.corpus.packing import Windows
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.collate import collate
from pmlm_core.model.compiling import compile_parts
from pmlm_core.model.cost import max_predictions
from pmlm_core.model.objectives import Objective
from pmlm_core.model.presets import preset
from pmlm_core.training.graphs import record
from pmlm_core.training.loader import Loader, Share
from pmlm_core.training.optimizer import build_adamw
from pmlm_core.training.pretraining import measure, pretraining_task
from pmlm_core.training.step import Precision, train_step

path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "model"))
from model_makers import random_rows

VIEWS, ROWS = 4, 2000
IDS = SpecialIds()


def write_blocks(folder: str, length: int, vocab: int) -> BlockSet:
    """One shard of random rows in several masked views."""
    rows = random_rows([length] * ROWS, vocab_size=vocab, mask_prob=0.15)
    windows = Windows(rows.input_ids, rows.offsets, rows.segment_starts)
    ordinary = np.arange(6, vocab)
    views = [
        mask_windows(windows, view=view, stream_key=0, first_row=0, special_ids=IDS, ordinary_ids=ordinary)
        for view in range(VIEWS)
    ]
    with ShardWriter(
        f"{folder}/a.arrow", views=VIEWS, vocab_size=vocab, max_length=length, tokenizer_fingerprint=""
    ) as out:
        out.write(windows, views)
    Manifest("", vocab, IDS, length, VIEWS, {"train": [out.entry("a.arrow")]}).save(folder)
    return BlockSet.open(folder)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    config = PmlmConfig(vocab_size=args.vocab, **vars(preset(args.preset)))
    model = PmlmForPreTraining(config).to(device).train()  # type: ignore[arg-type]
    optimizer = build_adamw(model, learning_rate=1e-4, betas=(0.9, 0.98), epsilon=1e-6, weight_decay=0.01)
    task, precision = pretraining_task(Objective.AE_PAR), Precision(device, args.precision)
    report = Report("loading", "Reading and collating beside the training step", (__doc__ or "").split("\n\n")[2])
    with tempfile.TemporaryDirectory() as folder:
        blocks = write_blocks(folder, args.length, args.vocab)

        def make(rows: np.ndarray, views: np.ndarray) -> dict[str, torch.Tensor]:
            batch = collate(
                blocks.rows(rows, views),
                objective="AE+PAR",
                max_length=args.length,
                max_predictions=max_predictions(args.length),
                special_ids=IDS,
            )
            del batch["attention_mask"]  # all rows are full, as training finds for itself
            return batch

        loader = Loader(
            lambda step: batch_rows(len(blocks), args.batch, 0, step, VIEWS),
            make,
            Share(0, 1, args.batch, args.batch),
            first_step=0,
            max_steps=args.steps + 2,
            device=device,
            measure=measure,
        )
        loader.prepare(0)
        begun = time.thread_time()
        for step in range(50):
            loader.prepare(step)
        prepared = (time.thread_time() - begun) / 50
        if device.type == "cuda":
            compile_parts(model)
            sample = loader.prepare(0)[0][1]
            record(model, {name: tensor.to(device) for name, tensor in sample.items()}, precision)
        seconds, waited, started = [], [], time.perf_counter()
        for step, micro_batches in loader:
            before = loader.waited
            predictions, _ = loader.measured
            train_step(
                model, optimizer, micro_batches, task, step=step, seed=0, precision=precision, counted=predictions
            )
            now = time.perf_counter()
            seconds.append(now - started)
            started = now
            waited.append(before)
    # The first two steps compile loops and fill caches.
    step_time = float(np.mean(seconds[2:]))
    wait = (waited[-1] - waited[1]) / len(seconds[2:])
    report.table(
        f"{args.preset}, {args.batch} x {args.length}, {args.precision}, {args.device}",
        ("", "ms a step", "share of the step"),
        [
            ("training step, wall time", f"{step_time * 1e3:.1f}", "100 %"),
            ("prepared (background thread)", f"{prepared * 1e3:.2f}", f"{prepared / step_time:.2%}"),
            ("waited", f"{wait * 1e3:.3f}", f"{wait / step_time:.3%}"),
        ],
    )
    report.finish(args.save)


if __name__ == "__main__":
    main()
