"""A small corpus in several forms, and options that cut it into several pieces, for tests of preprocessing."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.preprocess.config import PreprocessConfig
from tests.corpus.corpus_makers import jsonl, write, write_parquet


def write_corpus(folder: Path, texts: Sequence[str]) -> Path:
    """Six files; 64 KiB pieces make several tasks of them."""
    for i in range(5):
        write(folder / f"part-{i}.jsonl{('', '.gz', '.zst')[i % 3]}", jsonl(texts[i::5]))
    write_parquet(folder / "more.parquet", list(texts[:50]))
    return folder


def maker(corpus: Path, output: Path, tokenizer_dir: str) -> Callable[..., PreprocessConfig]:
    """Makes configurations of a small run, with changes."""

    def make(**changes: object) -> PreprocessConfig:
        options = {
            "inputs": [str(corpus)],
            "tokenizer": tokenizer_dir,
            "output_dir": str(output),
            "max_length": 32,
            "views": 2,
            "validation_fraction": 0.1,
            "piece_bytes": 1 << 16,
        }
        return PreprocessConfig(**{**options, **changes})  # type: ignore[arg-type]

    return make


def files_of(folder: str) -> dict[str, bytes]:
    """All files below a folder but the lock."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
