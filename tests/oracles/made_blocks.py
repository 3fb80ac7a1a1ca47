"""A small set of blocks whose content is known, and the slow way of looking a row up in it."""

import io
from pathlib import Path

import numpy as np

from pmlm_core.corpus.blocks import Manifest, Rows, ShardEntry, ShardWriter
from pmlm_core.corpus.masking import MaskedView, mask_windows
from pmlm_core.corpus.packing import Packer, Windows
from pmlm_core.corpus.special import SpecialIds

IDS = SpecialIds()
VIEWS = 2
SIZES = (2_500, 1, 300)  # rows of the three shards: more than one record batch, a single row, less than a batch
Made = list[tuple[Windows, list[MaskedView]]]


def made_of(rows: int, seed: int, vocab_size: int = 500) -> tuple[Windows, list[MaskedView]]:
    rng = np.random.default_rng(seed)
    packer = Packer(24, IDS, False, stream_key=seed)
    for length in rng.integers(1, 22, rows):
        packer.add(rng.integers(6, vocab_size, length))
    return (windows := packer.flush()), views_of(windows, seed)


def views_of(windows: Windows, stream_key: int, first_row: int = 0) -> list[MaskedView]:
    return [
        mask_windows(
            windows, view=v, stream_key=stream_key, first_row=first_row, special_ids=IDS, ordinary_ids=np.arange(6, 500)
        )
        for v in range(VIEWS)
    ]


def part(windows: Windows, begin: int, end: int) -> Windows:
    offsets = windows.offsets[begin : end + 1]
    ids = windows.input_ids[offsets[0] : offsets[-1]]
    return Windows(ids, offsets - offsets[0], windows.segment_starts[begin:end])


def writer(target: str | io.BytesIO, vocab_size: int = 500, tokenizer: str = "tok") -> ShardWriter:
    return ShardWriter(target, views=VIEWS, vocab_size=vocab_size, max_length=24, tokenizer_fingerprint=tokenizer)


def save(folder: str, entries: list[ShardEntry], vocab_size: int = 500) -> Manifest:
    manifest = Manifest(
        tokenizer_fingerprint="tok",
        vocab_size=vocab_size,
        special_ids=IDS,
        max_length=24,
        views=VIEWS,
        splits={"train": entries, "validation": []},
        counts={"documents": 3},
    )
    manifest.save(folder)
    return manifest


def build(folder: Path, vocab_size: int = 500) -> Made:
    shards, entries = [], []
    for i, rows in enumerate(SIZES):
        windows, views = made_of(rows, seed=i, vocab_size=vocab_size)
        with writer(str(folder / f"{i}.arrow"), vocab_size) as out:
            out.write(windows, views)
        entries.append(out.entry(f"{i}.arrow"))
        shards.append((windows, views))
    save(str(folder), entries, vocab_size)
    return shards


def check(rows: Rows, shards: Made, wanted: list[int], views: list[int]) -> None:
    for b, (index, v) in enumerate(zip(wanted, views, strict=True)):
        shard = 0
        while index >= len(shards[shard][0]):
            index -= len(shards[shard][0])
            shard += 1
        windows, view = shards[shard][0], shards[shard][1][v]
        masked = slice(view.offsets[index], view.offsets[index + 1])
        steps = slice(view.step_offsets[index], view.step_offsets[index + 1])
        got = slice(rows.masked_offsets[b], rows.masked_offsets[b + 1])
        assert rows.input_ids[rows.offsets[b] : rows.offsets[b + 1]].tolist() == windows.row(index).tolist()
        assert rows.segment_starts[b] == windows.segment_starts[index]
        assert rows.positions[got].tolist() == view.positions[masked].tolist()
        assert rows.replacement_ids[got].tolist() == view.replacement_ids[masked].tolist()
        assert (
            rows.step_lengths[rows.step_offsets[b] : rows.step_offsets[b + 1]].tolist()
            == view.step_lengths[steps].tolist()
        )
