"""Writes small corpora in every form, and reads pieces back, for the tests of reading and preprocessing."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Piece, plan_pieces
from pmlm_core.corpus.readers import Document, ReadProgress, Reject, read_documents
from pmlm_core.corpus.sources import list_sources

BIG = 1 << 30


def pack(data: bytes, name: str) -> bytes:
    """Compress as the ending of `name` says."""
    if name.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if name.endswith(".zst") else data


def jsonl(texts: list[str], **more: object) -> bytes:
    return "".join(json.dumps({"id": i, "text": text, **more}) + "\n" for i, text in enumerate(texts)).encode()


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(data, path.name))
    return str(path)


def write_parquet(path: Path, texts: list[str | None], row_group_size: int = 10, field: str = "text") -> str:
    table = pa.table({"id": list(range(len(texts))), field: pa.array(texts, pa.string())})
    pq.write_table(table, path, row_group_size=row_group_size)
    return str(path)


def pieces_of(
    path: str, kind: str = "auto", piece_bytes: int = BIG, **options: object
) -> tuple[list[Piece], InputFormat]:
    fmt = InputFormat(kind, **options)  # type: ignore[arg-type]
    return plan_pieces(list_sources([path], fmt), piece_bytes), fmt


def read(path: str, kind: str = "auto", piece_bytes: int = BIG, **options: object) -> tuple[list[str], list[Reject]]:
    """All texts and all rejects."""
    pieces, fmt = pieces_of(path, kind, piece_bytes, **options)
    found = [item for piece in pieces for item in read_documents(piece, fmt, ReadProgress())]
    return [d.text for d in found if isinstance(d, Document)], [r for r in found if isinstance(r, Reject)]
