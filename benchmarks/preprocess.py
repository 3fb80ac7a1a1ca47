"""Preprocessing beside raw SentencePiece, plain processes and `datasets.map` on the same text, and the memory it takes.

    python benchmarks/preprocess.py --tokenizer FOLDER [--input 'FILES' ...] [--workers 2] [--peer]

1. One core: reading, tokenizing, packing, masking and writing shards against `SentencePieceProcessor.encode` of the
   same texts, in CPU seconds of this process, interleaved, medians of the rounds.
2. The same pieces through Ray (`pmlm preprocess`'s own path, Ray's start and end included) and through a pool of as
   many plain processes, in wall time, taking turns. One piece of a few kilobytes gives what each way costs before any
   work. With `--peer` the same files from text to masked Arrow by `datasets.map` with as many processes
   (`hf_preprocess.py`); it makes one masked copy, ours `--views`. It needs `pip install -e .[bench]`.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import sentencepiece as spm
from memory import Memory
from preprocess_ways import Setting, folder, through_peer, through_processes, through_ray, tiny_piece
from race import Ratio, Samples, medians, race
from report import Report, options

from pipelines.cluster import available_cpus
from pipelines.preprocess.ray_stage import peak_memory
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Piece, plan_pieces
from pmlm_core.corpus.readers import read_documents
from pmlm_core.corpus.rejects import Document
from pmlm_core.corpus.sentencepiece_backend import SentencePieceBackend
from pmlm_core.corpus.shard_job import ShardOptions, run_piece
from pmlm_core.corpus.sources import list_sources
from pmlm_core.corpus.tokenizer import TextTokenizer

PROCESSES, RAY, PEER = "plain processes", "Ray", "datasets.map"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--input", nargs="+", default=["recipes/sample/*.jsonl.zst"])
    parser.add_argument("--input_format", default="auto")
    parser.add_argument("--tokenizer", required=True, help="folder made by `pmlm tokenizer`")
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--workers", type=int, default=available_cpus())
    parser.add_argument("--one_core_megabytes", type=float, default=40.0, help="text for part 1")
    parser.add_argument("--rounds", type=int, default=3, help="of part 1; 0 leaves it out")
    parser.add_argument("--turns", type=int, default=2, help="of part 2; 0 leaves it out")
    parser.add_argument("--peer", action="store_true", help="datasets.map in part 2, too")
    given = parser.parse_args()
    fmt = InputFormat(given.input_format)
    pieces = plan_pieces(list_sources(given.input, fmt))
    report = Report(
        "preprocess",
        "Preprocessing",
        f"Windows of {given.max_length} tokens, {given.views} masked copies of each (datasets.map: one).",
    )
    with tempfile.TemporaryDirectory(prefix="pmlm-benchmark-") as scratch:
        setting = Setting(
            ShardOptions(fmt, max_length=given.max_length, views=given.views),
            TextTokenizer.load(given.tokenizer),
            given.tokenizer,
            Path(scratch),
            given.workers,
            report,
        )
        if given.rounds:
            one_core(setting, pieces, given.one_core_megabytes * 1e6, given.rounds)
        if given.turns:
            side_by_side(setting, pieces, given.turns, peer=given.peer)
    report.finish(given.save)


def one_core(setting: Setting, pieces: list[Piece], limit: float, rounds: int) -> None:
    """Part 1."""
    chosen: list[Piece] = []
    texts: list[str] = []
    size = 0
    for piece in pieces:
        found = [d.text for d in read_documents(piece, setting.options.fmt) if isinstance(d, Document)]
        chosen.append(piece)
        texts += found
        size += sum(len(text.encode()) for text in found)
        if size >= limit:
            break

    def whole() -> None:
        with folder(setting) as out:
            for piece in chosen:
                run_piece(piece, setting.options, setting.tokenizer, str(out))

    def read_only() -> None:
        for piece in chosen:
            for _ in read_documents(piece, setting.options.fmt):
                pass

    ways: dict[str, Callable[[], object]] = {}
    if isinstance(setting.tokenizer.backend, SentencePieceBackend):
        raw = spm.SentencePieceProcessor(model_proto=setting.tokenizer.backend.model)
        ways["sentencepiece alone, whole documents"] = lambda: raw.encode(texts, num_threads=1)
        lines = [line for text in texts for line in text.split("\n")]
        ways["sentencepiece alone, line by line"] = lambda: raw.encode(lines, out_type="numpy", num_threads=1)
    ways["pmlm's tokenizer alone"] = lambda: setting.tokenizer.encode(texts)
    ways["reading alone"] = read_only
    ways[f"whole preprocessing, {setting.options.views} views"] = whole
    whole()  # compiles
    samples = race(ways, rounds)
    first = next(iter(ways))
    rows = [
        (name, f"{size / 1e6 / seconds:.1f}", str(Ratio.of(samples, first, name)))
        for name, seconds in medians(samples).items()
    ]
    title = f"one core: {len(texts):,} documents, {size / 1e6:.1f} MB, CPU time, medians of {rounds} rounds"
    setting.report.table(title, ("way", "MB/s", "times as fast as the first"), rows)


def side_by_side(setting: Setting, pieces: list[Piece], turns: int, *, peer: bool) -> None:
    """Part 2."""
    ways = {PROCESSES: through_processes, RAY: through_ray} | ({PEER: through_peer} if peer else {})
    # The order that `pmlm preprocess` takes them in.
    pieces = sorted(pieces, key=lambda piece: -piece.weight)
    loads = {"tiny": [tiny_piece(setting)], "quarter": pieces[::4], "all": pieces}
    samples: dict[str, Samples] = {}
    peaks: dict[tuple[str, str], tuple[float, int]] = {}
    text_bytes = 0

    def once(size: str, way: str) -> None:
        nonlocal text_bytes
        with folder(setting) as out, Memory() as memory:
            done, worker_peak = ways[way](setting, loads[size], str(out))
        text_bytes = max(text_bytes, done)
        before = peaks.get((size, way), (0.0, 0))
        peaks[size, way] = (max(before[0], memory.peak), max(before[1], worker_peak))

    for size in loads:
        contestants = {way: partial(once, size, way) for way in ways if size != "quarter" or way != PEER}
        samples[size] = race(contestants, turns, clock=time.monotonic)
    typical = {size: medians(taken) for size, taken in samples.items()}
    rows = []
    for way in ways:
        sizes = [size for size in ("quarter", "all") if way in typical[size]]
        rows.append(
            (
                way,
                *(f"{typical[size][way]:.1f}" if way in typical[size] else "" for size in loads),
                f"{text_bytes / 1e6 / typical['all'][way]:.1f}",
                " / ".join(f"{peaks[size, way][1] / 1e6:.0f}" for size in sizes if peaks[size, way][1]),
                " / ".join(f"{peaks[size, way][0] / 1e6:.0f}" for size in sizes),
            )
        )
    setting.report.table(
        f"{setting.workers} workers: {len(pieces)} pieces, {text_bytes / 1e6:.1f} MB, wall time, medians of {turns}; "
        "memory on a quarter / on all",
        (
            *("way", "before any work, s", "quarter, s", "all, s", "MB/s in all"),
            *("largest worker, MB", "all processes, MB"),
        ),
        rows,
    )
    conclude(setting, samples)


def conclude(setting: Setting, samples: dict[str, Samples]) -> None:
    """What Ray adds, and how the peer stands."""
    started = {way: statistics.median(seconds) for way, seconds in samples["tiny"].items()}
    work = {way: [s - started[way] for s in seconds] for way, seconds in samples["all"].items()}
    setting.report.note(
        f"Ray adds {started[RAY] - started[PROCESSES]:.1f} s fixed, and takes {Ratio.of(work, RAY, PROCESSES)} times "
        f"as long over the work itself; the driver's largest size: {peak_memory() / 1e6:.0f} MB."
    )
    if PEER in work:
        for way in (PROCESSES, RAY):
            setting.report.note(
                f"datasets.map takes {Ratio.of(samples['all'], PEER, way)} times as long as {way}, start included; "
                f"{Ratio.of(work, PEER, way)} times over the work itself."
            )


if __name__ == "__main__":
    main()
