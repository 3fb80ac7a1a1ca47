"""Preprocessing beside raw SentencePiece on the same text, Ray beside plain processes, and the memory it takes.

    python benchmarks/preprocess.py --tokenizer FOLDER [--input 'FILES' ...] [--workers 2]

1. One core: reading, tokenizing, packing, masking and writing shards against `SentencePieceProcessor.encode` of the
   same texts, in CPU seconds of this process, interleaved, best of the rounds.
2. The same pieces through Ray (`pmlm preprocess`'s own path, Ray's start and end included) and through a pool of as
   many plain processes, in wall time, taking turns. One piece of a few kilobytes gives what each way costs before any
   work.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import sentencepiece as spm
from race import best as least
from race import race
from rich.console import Console
from rich.table import Table

from pipelines.cluster import available_cpus, connected
from pipelines.preprocess.ray_stage import peak_memory, run_pieces
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Piece, plan_pieces
from pmlm_core.corpus.readers import read_documents
from pmlm_core.corpus.rejects import Document
from pmlm_core.corpus.sentencepiece_backend import SentencePieceBackend
from pmlm_core.corpus.shard_job import ShardOptions, run_piece
from pmlm_core.corpus.sources import list_sources
from pmlm_core.corpus.tokenizer import TextTokenizer


@dataclass
class Setting:
    """What all measurements share."""

    options: ShardOptions
    tokenizer: TextTokenizer
    tokenizer_dir: str
    scratch: Path
    workers: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", default=["recipes/sample/*.jsonl.zst"])
    parser.add_argument("--input_format", default="auto")
    parser.add_argument("--tokenizer", required=True, help="folder made by `pmlm tokenizer`")
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--workers", type=int, default=available_cpus())
    parser.add_argument("--one_core_megabytes", type=float, default=40.0, help="text for part 1")
    parser.add_argument("--rounds", type=int, default=3, help="of part 1")
    parser.add_argument("--turns", type=int, default=2, help="of part 2; 0 leaves it out")
    given = parser.parse_args()
    fmt = InputFormat(given.input_format)
    pieces = plan_pieces(list_sources(given.input, fmt), fmt)
    with tempfile.TemporaryDirectory(prefix="pmlm-benchmark-") as scratch:
        setting = Setting(
            ShardOptions(fmt, max_length=given.max_length, views=given.views),
            TextTokenizer.load(given.tokenizer),
            given.tokenizer,
            Path(scratch),
            given.workers,
        )
        one_core(setting, pieces, given.one_core_megabytes * 1e6, given.rounds)
        if given.turns:
            ray_and_processes(setting, pieces, given.turns)


def one_core(setting: Setting, pieces: list[Piece], limit: float, rounds: int) -> None:
    """Print part 1."""
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
    best = least(race(ways, rounds))
    table = Table(title=f"one core: {len(texts):,} documents, {size / 1e6:.1f} MB, CPU time, best of {rounds}")
    for column in ("way", "MB/s", "ratio to the first"):
        table.add_column(column, justify="left" if column == "way" else "right")
    first = next(iter(best.values()))
    for name, seconds in best.items():
        table.add_row(name, f"{size / 1e6 / seconds:.1f}", f"{first / seconds:.2f}")
    Console().print(table)


def ray_and_processes(setting: Setting, pieces: list[Piece], turns: int) -> None:
    """Print part 2."""
    tiny = _tiny_piece(setting)
    ways = {"processes": through_processes, "ray": through_ray}
    seconds: dict[tuple[str, str], list[float]] = {}
    peaks: dict[tuple[str, str], tuple[float, int]] = {}
    text_bytes = 0
    for turn in range(turns):
        for size, load in (("tiny", [tiny]), ("quarter", pieces[: max(1, len(pieces) // 4)]), ("all", pieces)):
            for way, go in sorted(ways.items(), reverse=turn % 2 == 1):
                with folder(setting) as out, Memory() as memory:
                    started = time.monotonic()
                    done, worker_peak = go(setting, load, str(out))
                    seconds.setdefault((size, way), []).append(time.monotonic() - started)
                if size == "all":
                    text_bytes = done
                peaks[size, way] = max(peaks.get((size, way), (0.0, 0)), (memory.peak, worker_peak))
    best = {key: min(values) for key, values in seconds.items()}
    table = Table(
        title=f"{setting.workers} workers: {len(pieces)} pieces, {text_bytes / 1e6:.1f} MB, wall time, best of {turns}"
    )
    for column in (
        "way",
        "before any work, s",
        "quarter, s",
        "all, s",
        "MB/s a core",
        "largest worker, MB",
        "all processes, MB",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way in ways:
        rate = text_bytes / 1e6 / best["all", way] / setting.workers
        memory_of = [f"{peaks[size, way][1] / 1e6:.0f}" for size in ("quarter", "all")]
        total = [f"{peaks[size, way][0] / 1e6:.0f}" for size in ("quarter", "all")]
        times = [f"{best[size, way]:.1f}" for size in ("tiny", "quarter", "all")]
        table.add_row(way, *times, f"{rate:.1f}", " / ".join(memory_of), " / ".join(total))
    Console().print(table)
    fixed = best["tiny", "ray"] - best["tiny", "processes"]
    work = {way: best["all", way] - best["tiny", way] for way in ways}
    Console().print(
        f"Ray adds {fixed:.1f} s fixed and {work['ray'] / work['processes'] - 1:+.1%} of the work; "
        f"largest process here (the driver): {peak_memory() / 1e6:.0f} MB. Memory columns: on a quarter / on all."
    )


def through_ray(setting: Setting, pieces: list[Piece], out: str) -> tuple[int, int]:
    """Bytes read, largest worker."""
    done = peak = 0
    with connected(setting.workers):
        outcomes = run_pieces(
            dict(enumerate(pieces)),
            setting.options,
            os.path.abspath(setting.tokenizer_dir),
            out,
            tokenizer_fingerprint=TextTokenizer.load(setting.tokenizer_dir).fingerprint,
            strict=False,
            num_workers=setting.workers,
        )
        for outcome in outcomes:
            if outcome.row is None:
                raise SystemExit(outcome.error)
            done += outcome.row.counts["input_bytes"]
            peak = max(peak, outcome.peak_bytes)
    return done, peak


def through_processes(setting: Setting, pieces: list[Piece], out: str) -> tuple[int, int]:
    """The same with a pool of plain processes."""
    context = multiprocessing.get_context("spawn")
    task = partial(_process_task, options=setting.options, folder=setting.tokenizer_dir, out=out)
    with context.Pool(setting.workers) as pool:
        results = list(pool.imap_unordered(task, pieces))
    return sum(done for done, _ in results), max(peak for _, peak in results)


_loaded: dict[str, TextTokenizer] = {}


def _process_task(piece: Piece, *, options: ShardOptions, folder: str, out: str) -> tuple[int, int]:
    if folder not in _loaded:
        _loaded[folder] = TextTokenizer.load(folder)
    row = run_piece(piece, options, _loaded[folder], out)
    return row.counts["input_bytes"], peak_memory()


def _tiny_piece(setting: Setting) -> Piece:
    path = setting.scratch / "tiny.txt"
    path.write_text("A few words to begin with.\n" * 100)
    fmt = replace(setting.options.fmt, kind="text_lines")
    return plan_pieces(list_sources([str(path)], fmt), fmt)[0]


@contextmanager
def folder(setting: Setting) -> Iterator[Path]:
    """A fresh output folder."""
    made = Path(tempfile.mkdtemp(dir=setting.scratch))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


class Memory:
    """Samples the memory of this process and all its descendants (proportional set size: shared pages count once)."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self.peak = max(self.peak, sum(map(_pss, _family(os.getpid()))))


def _family(root: int) -> list[int]:
    """`root` and its descendants, by process id."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    family, fresh = [root], [root]
    while fresh:
        fresh = [child for parent in fresh for child in parents.get(parent, [])]
        family += fresh
    return family


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended
    return 0


if __name__ == "__main__":
    main()
