"""The ledger: one small JSON file for every finished piece, written after its shards.

It says which bytes were read, what came of them and what was left out. A piece with a ledger row and whole shards is
done; anything else is done again.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pmlm_core import storage
from pmlm_core.corpus.manifest import ShardEntry
from pmlm_core.corpus.pieces import Piece, Span

LEDGER = "ledger"


@dataclass(frozen=True)
class LedgerRow:
    """What is known of a finished piece.

    Attributes:
        key: name of its shards; a function of `digest` and `fingerprint`.
        digest: of the piece's bytes; `fingerprint`: of the options and the tokenizer.
        spans: the parts of files it read; `span_rows`: rows of each.
        counts: documents, input_bytes (decompressed), text_bytes (UTF-8 of the documents), text_tokens, dropped_tokens,
            lost_rows (records of Parquet that could not be read).
        rejects: {"counts": reason -> number, "kept": the first of each reason}; spans are numbers into `spans`.
        shards: split -> shard.
        aliases: spans of other pieces of the same bytes; the run that met them notes them, so that all are found again.
    """

    key: str
    digest: str
    fingerprint: str
    spans: list[dict[str, Any]]
    span_rows: list[int]
    counts: dict[str, int]
    rejects: dict[str, Any]
    shards: dict[str, ShardEntry] = field(default_factory=dict)
    aliases: list[list[dict[str, Any]]] = field(default_factory=list)

    @staticmethod
    def describe(piece: Piece) -> list[dict[str, Any]]:
        """The spans of a piece as plain data."""
        return [span_as_dict(span) for span in piece.spans]

    def describes(self, piece: Piece) -> bool:
        return self.describe(piece) in (self.spans, *self.aliases)

    def for_piece(self, piece: Piece) -> "LedgerRow":
        """The same row for a piece of the same bytes."""
        return self.at(self.describe(piece))

    def at(self, spans: list[dict[str, Any]]) -> "LedgerRow":
        """The same row for the same bytes elsewhere; offsets of rejects move along."""
        moved = [new["start"] - old["start"] for new, old in zip(spans, self.spans, strict=True)]
        kept = [
            item if item["byte_offset"] is None else item | {"byte_offset": item["byte_offset"] + moved[item["span"]]}
            for item in self.rejects["kept"]
        ]
        return replace(self, spans=spans, aliases=[], rejects=self.rejects | {"kept": kept})

    def slim(self) -> "LedgerRow":
        """Without the list of rejects, which the report reads again: memory must not grow with bad input."""
        return replace(self, rejects={"counts": self.rejects["counts"], "kept": []})

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "LedgerRow":
        raw = json.loads(text)
        raw["shards"] = {split: ShardEntry.read(entry) for split, entry in raw["shards"].items()}
        return cls(**raw)


def span_as_dict(span: Span) -> dict[str, Any]:
    """Plain data that tells a span from every other, and from the same span of a file that has changed since."""
    return asdict(span.source) | {"start": span.start, "end": span.end}


def piece_identity(fingerprint: str, spans: Iterable[dict[str, Any]]) -> str:
    """What a finished piece is looked up by without reading it: names, sizes and times of its files."""
    return json.dumps([fingerprint, list(spans)], sort_keys=True)


def _path(output_dir: str, key: str) -> str:
    return storage.join(output_dir, LEDGER, f"{key}.json")


def save_row(output_dir: str, row: LedgerRow) -> None:
    """Write a row, whole or not at all."""
    storage.write_bytes(_path(output_dir, row.key), row.to_json().encode())


def load_row(output_dir: str, key: str) -> LedgerRow | None:
    """The row of that key, or None if there is none that can be read (then the piece is simply done again)."""
    where = _path(output_dir, key)
    if not storage.exists(where):
        return None
    try:
        return LedgerRow.from_json(storage.read_bytes(where))
    except (ValueError, TypeError, KeyError):
        return None


def load_ledger(output_dir: str, map: Callable[..., Iterable[Any]] = map) -> dict[str, LedgerRow]:
    """Rows (slim) of all finished pieces by `piece_identity`; `map` reads them, e.g. `ThreadPoolExecutor().map`."""
    keys = [n.removesuffix(".json") for n in storage.names_in(storage.join(output_dir, LEDGER)) if n.endswith(".json")]
    known: dict[str, LedgerRow] = {}
    for row in map(lambda key: _slim_row(output_dir, key), keys):
        if row is not None:
            for spans in (row.spans, *row.aliases):
                known[piece_identity(row.fingerprint, spans)] = row.at(spans)
    return known


def _slim_row(output_dir: str, key: str) -> LedgerRow | None:
    row = load_row(output_dir, key)
    return None if row is None else row.slim()


def is_finished(output_dir: str, row: LedgerRow) -> bool:
    """Whether a row's piece need not be done again: its shards are whole, and no file of it was barred from reading."""
    return "unreadable" not in row.rejects["counts"] and shards_are_there(output_dir, row)


def shards_are_there(output_dir: str, row: LedgerRow) -> bool:
    """Whether every shard of a row lies where it should, with the right length."""
    return all(
        storage.size(storage.join(output_dir, *entry.path.split("/"))) == entry.bytes for entry in row.shards.values()
    )
