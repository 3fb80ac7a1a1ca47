"""What a reader gives: a document, or a reject that says what was left out, where, and why.

Reasons are few and fixed, so that they can be counted; `detail` is the sentence for a person.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

REASONS = {
    "empty_file": "the file holds no document",
    "empty_text": "the text is empty",
    "invalid_utf8": "the bytes are not UTF-8",
    "nul_byte": "the text holds a NUL character",
    "too_long": "the document is longer than max_document_bytes",
    "truncated_file": "the compressed file ends early",
    "corrupt_file": "the file cannot be decoded",
    "invalid_json": "the line is not a JSON object",
    "missing_field": "the JSON object lacks the text field",
    "not_text": "the field holds something else than text",
    "wrong_schema": "the Parquet file lacks a text column of that name",
    "unreadable": "the file may not be read",
    "duplicate": "the same bytes were given twice; the second is left out",
    "unknown_form": "the file's name does not tell its form; if it is to be read, give it one that does",
    "plain_text": (
        "plain text beside other forms; make it JSON lines to read it with them, or give it by itself with "
        "--input_format text_lines, text_blocks or text_files"
    ),
    "hidden": "its name, or that of a folder above it, begins with . or _",
    "no_file": "no file that can be read: a link that leads nowhere, a pipe or a device",
    "bad_name": "the name is not UTF-8; rename it",
}
_EXCERPT, _DETAIL = 80, 1000


class Document(NamedTuple):
    """One document of a piece.

    `row` counts from 1 within the span: the line a document begins on, the record number in Parquet.
    """

    text: str
    row: int
    span: int


class Reject(NamedTuple):
    """Something that was left out. `row` counts as in `Document`; 0 means the file as a whole."""

    span: int
    row: int
    byte_offset: int | None
    reason: str
    excerpt: str
    detail: str = ""


def excerpt(raw: bytes | str) -> str:
    """The first characters of what was left out, safe to print."""
    if isinstance(raw, bytes):
        raw = raw[: 4 * _EXCERPT].decode("utf-8", "backslashreplace")
    shown = (each if " " <= each <= "~" else each.encode("unicode_escape").decode("ascii") for each in raw[:_EXCERPT])
    return "".join(shown)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))


@dataclass
class RejectLog:
    """Counts every reject by reason and keeps the first `keep` of each, so that memory is bounded on hopeless input."""

    keep: int = 100
    counts: Counter[str] = field(default_factory=Counter)
    kept: list[Reject] = field(default_factory=list)

    def add(self, reject: Reject) -> None:
        assert reject.reason in REASONS, reject.reason
        self.counts[reject.reason] += 1
        if self.counts[reject.reason] <= self.keep:
            # It goes into a file of UTF-8, and may quote what the input calls its fields.
            detail = reject.detail[:_DETAIL].encode("utf-8", "backslashreplace").decode()
            self.kept.append(reject._replace(detail=detail))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a ledger."""
        return {"counts": dict(sorted(self.counts.items())), "kept": [reject._asdict() for reject in self.kept]}


@dataclass
class ReadProgress:
    """What was consumed: rows of each span (lines or records), bytes after decompression, documents taken.

    `lost_rows` are records of Parquet that could not be read and are told of together, not one by one.
    `span_bytes` counts the markup around the text too, of Parquet the text column alone; `text_bytes` the documents.
    """

    rows: dict[int, int] = field(default_factory=dict)
    span_bytes: Counter[int] = field(default_factory=Counter)
    text_bytes: int = 0
    documents: int = 0
    lost_rows: int = 0

    def take(self, document: Document) -> None:
        self.documents += 1
        self.text_bytes += _length(document.text)

    def take_back(self, document: Document) -> None:
        """It turned out to hold nothing."""
        self.documents -= 1
        self.text_bytes -= _length(document.text)

    @property
    def input_bytes(self) -> int:
        """Bytes read of all spans."""
        return sum(self.span_bytes.values())
