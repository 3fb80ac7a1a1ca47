"""What is fetched from an object store before the first step and by the next ones: record batches beside whole shards.

    python benchmarks/remote_blocks.py [--shards 200] [--rows 8192] [--batch 256] [--bound_gb 0.5] [--save]

Blocks of 128 random tokens a row, four views, lie on an S3 server on this machine (moto, in memory: it has no latency
to speak of, so only bytes and requests mean something, not seconds). The product's loader reads the steps of one
worker, whose computation is half a second of sleep. "whole shards" are the same blocks without the parts' digests in
their manifest, as pmlm wrote them before: every shard is fetched whole at its first row, nothing ahead.
"""

import logging
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from sys import path

import numpy as np
import torch
from report import Report, options

path.insert(0, str(Path(__file__).resolve().parent.parent))
from pmlm_core import storage
from pmlm_core.corpus.blocks import BATCH_ROWS, BlockSet, Manifest, ShardWriter
from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.order import batch_rows
from pmlm_core.corpus.packing import Windows
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.training.loader import Loader, Share
from tests.faulty_store import FaultyStore, faulty_store

LENGTH, VIEWS, VOCAB, STEPS = 128, 4, 8000, 8
IDS = SpecialIds()


def write_blocks(folder: str, shards: int, rows: int) -> Manifest:
    """Shards that differ in every record batch, masked alike."""
    ids = np.random.default_rng(0).integers(6, VOCAB, rows * LENGTH).astype(np.int32)
    offsets = np.arange(rows + 1, dtype=np.int64) * LENGTH
    windows = Windows(ids, offsets, np.full(rows, LENGTH, np.int32))
    ordinary = np.arange(6, VOCAB)
    views = [
        mask_windows(windows, view=view, stream_key=0, first_row=0, special_ids=IDS, ordinary_ids=ordinary)
        for view in range(VIEWS)
    ]
    entries = []
    for number in range(shards):
        ids[:: BATCH_ROWS * LENGTH] = 6 + number
        with tempfile.NamedTemporaryFile() as file:
            with ShardWriter(
                file.name, views=VIEWS, vocab_size=VOCAB, max_length=LENGTH, tokenizer_fingerprint=""
            ) as out:
                out.write(windows, views)
            entries.append(out.entry(f"{number}.arrow"))
            storage.copy_file(file.name, storage.join(folder, f"{number}.arrow"))
    return Manifest("", VOCAB, IDS, LENGTH, VIEWS, {"train": entries})


def steps_of(store: FaultyStore, folder: str, manifest: Manifest, batch: int, ahead: bool) -> list[str]:
    """MB and requests until the first step could begin, MB a later step, and seconds that it waited."""
    store.requests.clear()
    blocks = BlockSet(folder, manifest, "train")
    views = np.zeros(batch, np.int64)
    loader = Loader(
        lambda step: (batch_rows(len(blocks), batch, 0, step, VIEWS)[0], views),
        lambda rows, chosen: {"input_ids": torch.from_numpy(blocks.rows(rows, chosen).input_ids)},
        Share(0, 1, batch, 32),
        first_step=0,
        max_steps=STEPS,
        device=torch.device("cpu"),
        coming=blocks.fetch_ahead,
        told_ahead=blocks.steps_ahead(batch) if ahead else 0,
    )
    first, waited = (0.0, 0), 0.0
    for step, _ in loader:
        if step == 0:
            first, waited = (sum(r.sent for r in store.got(".arrow")) / 1e6, len(store.got(".arrow"))), loader.waited
        time.sleep(0.5)
    total = sum(request.sent for request in store.got(".arrow")) / 1e6
    later = (loader.waited - waited) / (STEPS - 1)
    return [
        f"{first[0]:,.0f}",
        f"{first[1]:,}",
        f"{waited:.1f}",
        f"{(total - first[0]) / (STEPS - 1):,.0f}",
        f"{later:.2f}",
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--rows", type=int, default=8192, help="rows of a shard")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--bound_gb", type=float, default=0.5)
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    said = f"{given.shards} shards of {given.rows} rows; steps of {given.batch}. Bounded: {given.bound_gb:g} GB."
    report = Report("remote-blocks", "Blocks in an object store", said)
    with faulty_store("blocks") as store:
        folder = "s3://blocks/set"
        parts = write_blocks(folder, given.shards, given.rows)
        bare = [replace(entry, part_bytes=[], part_sha256=[]) for entry in parts.splits["train"]]
        rows = []
        for bound in ("", str(given.bound_gb)):
            for name, manifest, ahead in (
                ("whole shards", replace(parts, splits={"train": bare}), False),
                ("record batches, ahead", parts, True),
            ):
                with tempfile.TemporaryDirectory() as cache:
                    os.environ |= {"PMLM_CACHE": cache, "PMLM_CACHE_GB": bound}
                    where = name + (", bounded" if bound else "")
                    rows.append([where, *steps_of(store, folder, manifest, given.batch, ahead)])
        total = sum(entry.bytes for entry in bare) / 1e6
        columns = ("", "MB before step 1", "requests", "seconds", "MB a later step", "seconds waited a later step")
        report.table(f"Fetched of {total:,.0f} MB", columns, rows)
    report.finish(given.save)


if __name__ == "__main__":
    main()
