"""Start and resumption of training on 1, 10 and 100 million rows: seconds and memory until the first micro-batch.

    python benchmarks/start.py [--rows 1e6 1e7 1e8] [--rows_per_shard 16384] [--rounds 5]

100 million rows of 512 tokens are about 190 GB of text. The blocks are made up: a manifest that lists as many shards as
preprocessing would make of so much text (a piece of 32 MiB gives about 16,384 rows), all of them the same file. Every
measurement is a process of its own, which has imported everything and read from a small set of blocks before: it reads
the manifest as the command does, then makes the worker's loader and waits for the first micro-batch, at step 0 and in
the middle of the first epoch. Sizes take turns. Memory is the growth while the loader works ahead, by a few steps: what
the process allocated, and pages of shards that it maps, which the kernel drops when it needs room.
"""

import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from report import Report, options

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.plan import plan_for
from pipelines.pretrain.setup import training_loader
from pipelines.run_folder import RunDir
from pmlm_core.corpus.manifest import MANIFEST, Manifest, ShardEntry
from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.packing import Packer
from pmlm_core.corpus.shards import ShardWriter
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.training.step import Precision

LENGTH, VIEWS, VOCABULARY, BATCH = 512, 2, 8000, 256
FIGURES = ("manifest", "first", "middle", "allocated", "mapped")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--rows_per_shard", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    report = Report(
        "start",
        "Start of training by the number of rows",
        f"Rows of {LENGTH} tokens, batches of {BATCH}; every figure is the median of {given.rounds} processes (least "
        "to largest).",
    )
    with tempfile.TemporaryDirectory(prefix="pmlm-benchmark-") as scratch:
        sets = make_sets(Path(scratch), [int(rows) for rows in given.rows], given.rows_per_shard)
        found: dict[int, list[dict[str, float]]] = {rows: [] for rows in sets}
        for turn in range(given.rounds):
            for rows in list(sets)[:: 1 if turn % 2 == 0 else -1]:
                found[rows].append(measured(sets[rows], Path(scratch) / "small"))
        lines = []
        for rows, folder in sets.items():
            of = {name: [figures[name] for figures in found[rows]] for name in FIGURES}
            size = (folder / MANIFEST).stat().st_size / 1e6
            shards = len(Manifest.load(str(folder)).splits["train"])
            lines.append((f"{rows:,}", f"{shards:,}", f"{size:.2f}", *(told(of[name]) for name in FIGURES)))
    columns = (
        *("rows", "shards", "manifest, MB", "reading the manifest, ms", "loader to first micro-batch, ms"),
        *("the same from the middle, ms", "allocated, MB", "mapped, MB"),
    )
    report.table("Until the first micro-batch", columns, lines)
    report.finish(given.save)


def told(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def make_sets(scratch: Path, sizes: list[int], rows_per_shard: int) -> dict[int, Path]:
    """Folders of blocks by their number of rows; and a small one to warm up with, `small`."""
    entry = write_shard(scratch / "shard.arrow", rows_per_shard)
    sets = {rows: scratch / f"{rows}-rows" for rows in sizes}
    for folder, rows in ((scratch / "small", rows_per_shard), *((sets[rows], rows) for rows in sizes)):
        folder.mkdir()
        (folder / entry.path).hardlink_to(scratch / entry.path)  # a manifest names none outside its folder
        shards = [
            # The digests differ in a real manifest, and so take room in memory.
            replace(entry, sha256=f"{number:064x}")
            for number in range(max(1, rows // rows_per_shard))
        ]
        uris = [f"/corpus/part-{number:06d}.jsonl.zst" for number in range(len(shards))]
        inputs = [{"uri": uri, "bytes": 1 << 25, "form": "jsonl"} for uri in uris]
        splits = {"train": shards, "validation": []}
        Manifest("tok", VOCABULARY, SpecialIds(), LENGTH, VIEWS, splits, inputs=inputs).save(str(folder))
    return sets


def write_shard(path: Path, rows: int) -> ShardEntry:
    """A shard of random tokens in full windows."""
    ids, ordinary = SpecialIds(), np.arange(6, VOCABULARY)
    packer = Packer(LENGTH, ids, True, stream_key=0)
    packer.add(np.random.default_rng(0).integers(6, VOCABULARY, rows * packer.capacity).astype(np.int32))
    windows = packer.flush()
    masking = partial(mask_windows, windows, stream_key=0, first_row=0, special_ids=ids, ordinary_ids=ordinary)
    with ShardWriter(
        str(path), views=VIEWS, vocab_size=VOCABULARY, max_length=LENGTH, tokenizer_fingerprint="tok"
    ) as writer:
        writer.write(windows, [masking(view=view) for view in range(VIEWS)])
    return writer.entry(path.name)


def measured(folder: Path, small: Path) -> dict[str, float]:
    """`FIGURES` of a fresh process: milliseconds, and megabytes."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(str(folder), str(small), send))
    process.start()
    send.close()
    with closing(receive):
        figures = receive.recv()
    process.join()
    return figures


def _measure(folder: str, small: str, send: Connection) -> None:
    torch.set_num_threads(1)
    start(small, 0)
    manifest, first, allocated, mapped = start(folder, 0)
    _, middle, *_ = start(folder, middle_of(folder))
    figures = (manifest, first, middle, allocated, mapped)
    send.send(dict(zip(FIGURES, map(float, figures), strict=True)))


def start(folder: str, step: int) -> tuple[float, ...]:
    """Milliseconds for the manifest as the command reads it and for a worker's first micro-batch from `step` on; MB
    more of this process's own memory and of mapped files, while the loader is there."""
    config = PretrainConfig(data_dir=folder, output_dir=folder, preset="tiny", batch_size=BATCH, max_steps=step + 8)
    before, begun = resident(), time.perf_counter()
    plan = plan_for(config, RunDir(Path(folder)), Manifest.load(folder), attempt="", threads=1)
    planned = time.perf_counter()
    loader = training_loader(plan, Precision(torch.device("cpu"), "fp32"), 0, 1, step)
    steps = iter(loader)
    assert isinstance(steps, Generator)  # what is closed here
    next(steps)
    taken = time.perf_counter() - planned
    steps.close()
    for thread in threading.enumerate():  # the loader's works ahead
        if thread is not threading.main_thread():
            thread.join()
    return 1e3 * (planned - begun), 1e3 * taken, *(resident() - before)


def middle_of(folder: str) -> int:
    return Manifest.load(folder).rows("train") // BATCH // 2


def resident() -> np.ndarray:
    """MB of this process's own memory, and of files that it maps."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {words[0]: int(words[1]) / 1e3 for words in lines if words[0] in ("RssAnon:", "RssFile:")}
    return np.array([sizes["RssAnon:"], sizes["RssFile:"]])


if __name__ == "__main__":
    main()
