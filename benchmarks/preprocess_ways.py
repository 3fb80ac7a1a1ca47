"""The ways from text to masked Arrow that `preprocess.py` compares; each returns the bytes it read and the largest size
of a worker in bytes, 0 where that is not told."""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from report import Report

from pipelines.cluster import connected
from pipelines.preprocess.ray_stage import peak_memory, run_pieces
from pmlm_core.corpus.pieces import Piece, plan_pieces
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
    report: Report


def through_ray(setting: Setting, pieces: list[Piece], out: str) -> tuple[int, int]:
    """As `pmlm preprocess` does it, the start and end of Ray included."""
    done = peak = 0
    with connected(setting.workers):
        outcomes = run_pieces(
            dict(enumerate(pieces)),
            setting.options,
            os.path.abspath(setting.tokenizer_dir),
            out,
            tokenizer_fingerprint=setting.tokenizer.fingerprint,
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
    """With a pool of plain processes."""
    context = multiprocessing.get_context("spawn")
    task = partial(_process_task, options=setting.options, folder=setting.tokenizer_dir, out=out)
    with context.Pool(setting.workers) as pool:
        results = list(pool.imap_unordered(task, pieces))
    return sum(done for done, _ in results), max(peak for _, peak in results)


def through_peer(setting: Setting, pieces: list[Piece], out: str) -> tuple[int, int]:
    """The same files by `datasets.map`."""
    from hf_preprocess import through_datasets

    if not isinstance(setting.tokenizer.backend, SentencePieceBackend):
        raise SystemExit("the peer needs a SentencePiece model: give another --tokenizer")
    sources = list(dict.fromkeys(span.source for piece in pieces for span in piece.spans))
    builder = {"jsonl": "json", "text_lines": "text"}[sources[0].kind]
    files = [source.uri for source in sources]
    model = setting.tokenizer.backend.model
    through_datasets(model, files, builder, setting.workers, setting.options.max_length, out)
    return 0, 0


_loaded: dict[str, TextTokenizer] = {}


def _process_task(piece: Piece, *, options: ShardOptions, folder: str, out: str) -> tuple[int, int]:
    if folder not in _loaded:
        _loaded[folder] = TextTokenizer.load(folder)
    row = run_piece(piece, options, _loaded[folder], out)
    return row.counts["input_bytes"], peak_memory()


def tiny_piece(setting: Setting) -> Piece:
    path = setting.scratch / "tiny.txt"
    path.write_text("A few words to begin with.\n" * 100)
    fmt = replace(setting.options.fmt, kind="text_lines")
    return plan_pieces(list_sources([str(path)], fmt))[0]


@contextmanager
def folder(setting: Setting) -> Iterator[Path]:
    """A fresh output folder."""
    made = Path(tempfile.mkdtemp(dir=setting.scratch))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
