"""What packing, masking and writing blocks cost beside raw sentencepiece on the same text, in one run on one core.

    python benchmarks/masking.py [--megabytes 8] [--views 4]

Prints processor time (not wall time, so that a busy machine does not spoil it) as nanoseconds a token, as tokens a
second, and as a share of tokenization; then the speed of reading rows back in random order, and of the plain Python
Algorithm 1 that the tests compare with.
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import sentencepiece
import zstandard
from race import race
from rich.console import Console
from rich.table import Table

from pmlm_core.corpus.blocks import BlockSet, Manifest, ShardEntry, ShardWriter
from pmlm_core.corpus.masking import MaskedView, mask_windows
from pmlm_core.corpus.order import batch_rows
from pmlm_core.corpus.packing import Packer
from pmlm_core.corpus.special import SpecialIds

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from oracles import algorithm1  # noqa: E402

IDS = SpecialIds()
OWN = 6  # ids of the specials; a sentencepiece id follows them
VOCAB, LENGTH = 8_000, 512


def sample(megabytes: float) -> list[str]:
    """Documents of the embedded sample of public-domain books, repeated up to the size asked for."""
    texts: list[str] = []
    for path in sorted((ROOT / "recipes" / "sample").glob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    have = sum(len(text) for text in texts)
    return (texts * (int(megabytes * 1e6 / have) + 1))[: max(1, round(len(texts) * megabytes * 1e6 / have))]


def timed(work: Callable[[], object], repeats: int = 3) -> float:
    """Least processor seconds of a few runs."""
    return min(race({"": work}, repeats)[""])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=float, default=8)
    options.add_argument("--views", type=int, default=4)
    args = options.parse_args()
    texts = sample(args.megabytes)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts[:60]), model_writer=model, vocab_size=VOCAB, minloglevel=2, num_threads=1,
        max_sentence_length=100_000,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    documents = [np.array(ids, np.int32) + OWN for ids in processor.encode(texts)]
    tokens = sum(map(len, documents))
    tokenize = timed(lambda: processor.encode(texts, num_threads=1), repeats=2)
    ordinary = np.arange(OWN, OWN + VOCAB)

    def pack() -> Packer:
        packer = Packer(LENGTH, IDS, True, stream_key=1)
        for ids in documents:
            packer.add(ids)
        return packer

    windows = pack().flush()

    def mask(view: int) -> MaskedView:
        return mask_windows(windows, view=view, stream_key=1, first_row=0, special_ids=IDS, ordinary_ids=ordinary)

    views = [mask(view) for view in range(args.views)]
    plain_rows = min(200, len(windows))
    random = Random(0)
    maskable = [[int(token) > 5 for token in windows.row(r)] for r in range(plain_rows)]
    with tempfile.TemporaryDirectory() as folder:
        entries: list[ShardEntry] = []

        def write() -> None:
            with ShardWriter(
                f"{folder}/a.arrow",
                views=args.views,
                vocab_size=OWN + VOCAB,
                max_length=LENGTH,
                tokenizer_fingerprint="",
            ) as out:
                out.write(windows, views)
            entries[:] = [out.entry("a.arrow")]

        costs = {
            "raw sentencepiece (unigram)": tokenize,
            "pack": timed(lambda: pack().flush()),
            f"mask, {args.views} views": timed(lambda: [mask(view) for view in range(args.views)]),
            f"write Arrow + SHA-256, {args.views} views": timed(write),
        }
        costs["pack + mask + write"] = sum(list(costs.values())[1:])
        Manifest("", OWN + VOCAB, IDS, LENGTH, args.views, {"train": entries}).save(folder)
        blocks = BlockSet.open(folder)
        batches = [batch_rows(len(blocks), 256, 0, step, args.views) for step in range(100)]
        blocks.rows(*batches[0])
        read = timed(lambda: [blocks.rows(*batch) for batch in batches]) / (100 * 256)
    plain = timed(lambda: [algorithm1.mask(row, random, 0.15, 0.4, 2, 6) for row in maskable], 1) / plain_rows
    fast = costs[f"mask, {args.views} views"] / args.views / len(windows)

    table = Table(title=f"{tokens:,} tokens, {len(windows):,} windows of {LENGTH}, one core")
    for heading in ("", "ns / token", "M tokens / s", "share of tokenization"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, seconds in costs.items():
        table.add_row(
            name, f"{seconds / tokens * 1e9:.1f}", f"{tokens / seconds / 1e6:.1f}", f"{seconds / tokenize:.1%}"
        )
    console = Console()
    console.print(table)
    console.print(f"read back in random order, 256 rows a batch: {1 / read:,.0f} rows/s ({read * 1e6:.1f} us a row)")
    console.print(
        f"masking a window: {fast * 1e6:.2f} us; plain Python Algorithm 1: {plain * 1e6:.0f} us ({plain / fast:.0f}x)"
    )


if __name__ == "__main__":
    main()
