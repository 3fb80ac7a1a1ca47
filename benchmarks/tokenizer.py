"""How fast text becomes ids: `TextTokenizer` beside SentencePiece alone, in one run, on one thread.

    python benchmarks/tokenizer.py [--text 'FILES' ...] [--tokenizer FOLDER] [--megabytes 20]

Times are CPU seconds of this process, the median of rounds in which the ways take turns.
"""

import argparse
from collections.abc import Callable

import sentencepiece as spm
from race import Ratio, medians, race
from rich.console import Console
from rich.table import Table

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import plan_pieces
from pmlm_core.corpus.readers import read_documents
from pmlm_core.corpus.rejects import Document
from pmlm_core.corpus.sentencepiece_backend import SentencePieceBackend
from pmlm_core.corpus.sources import list_sources
from pmlm_core.corpus.text_cuts import cut
from pmlm_core.corpus.tokenizer import TextTokenizer, train

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", default=["recipes/sample/*.jsonl.zst"])
    parser.add_argument(
        "--tokenizer", help="made by `pmlm tokenizer`; left out, unigram and BPE are trained on the text"
    )
    parser.add_argument("--megabytes", type=float, default=20.0)
    options = parser.parse_args()
    documents = read(options.text, options.megabytes * 1e6)
    if options.tokenizer:
        tokenizers = {options.tokenizer: TextTokenizer.load(options.tokenizer)}
    else:
        passages = [passage for document in documents for passage in cut(document)]
        sample = passages[:: max(1, len(passages) // 1000)]
        tokenizers = {kind: train(sample, vocab_size=8000, model_type=kind) for kind in ("unigram", "bpe")}
    for name, tokenizer in tokenizers.items():
        compare(name, tokenizer, documents)


def read(inputs: list[str], limit: float) -> list[str]:
    """Documents of `inputs`, about `limit` bytes of them."""
    fmt = InputFormat("auto")
    documents, held = [], 0
    for piece in plan_pieces(list_sources(inputs, fmt)):
        for found in read_documents(piece, fmt):
            if isinstance(found, Document):
                documents.append(found.text)
                held += len(found.text.encode())
            if held >= limit:
                return documents
    return documents


def compare(name: str, tokenizer: TextTokenizer, documents: list[str]) -> None:
    """Print one table for one model."""
    megabytes = sum(len(text.encode()) for text in documents) / 1e6
    ways: dict[str, Callable[[], object]] = {"TextTokenizer.encode": lambda: tokenizer.encode(documents)}
    if isinstance(tokenizer.backend, SentencePieceBackend):
        raw = spm.SentencePieceProcessor(model_proto=tokenizer.backend.model)
        ways = {
            "sentencepiece, whole documents, lists": lambda: raw.encode(documents, num_threads=1),
            "sentencepiece, whole documents, arrays": lambda: raw.encode(documents, out_type="numpy", num_threads=1),
            **ways,
        }
    samples = race(ways, ROUNDS, warm_up=True)
    table = Table(title=f"{name}: {len(documents):,} documents, {megabytes:.1f} MB, {tokenizer.vocab_size:,} pieces")
    for column in ("way", "MB/s a core", "times as fast as the first"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, seconds in medians(samples).items():
        table.add_row(way, f"{megabytes / seconds:.1f}", str(Ratio.of(samples, next(iter(ways)), way)))
    Console().print(table)


if __name__ == "__main__":
    main()
