"""Saying where something was left out: file and absolute row, although readers count rows within a span."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pmlm_core.corpus.ledger import LedgerRow
from pmlm_core.corpus.pieces import Span
from pmlm_core.corpus.rejects import REASONS, Reject
from pmlm_core.storage import resolve

_READ = 1 << 20


def place(span: Span, reject: Reject) -> str:
    """One sentence: file, absolute row, reason."""
    row = reject.row + (rows_before(span) if reject.row else 0)
    where = f"{span.source.uri}, row {row}" if row else span.source.uri
    detail = f" ({reject.detail})" if reject.detail else ""
    return f"{where}: {REASONS[reject.reason]}{detail}"


def rows_before(span: Span) -> int:
    """Rows of the file ahead of a span, counted in the file."""
    if span.first or span.start <= 0:
        return 0
    file_system, path = resolve(span.source.uri)
    with file_system.open_input_file(path) as file:
        if span.source.kind == "parquet":
            import pyarrow.parquet as pq

            metadata = pq.read_metadata(file)
            return sum(metadata.row_group(group).num_rows for group in range(span.start))
        rows, left = 0, span.start
        while left and (chunk := file.read(min(_READ, left))):
            rows += chunk.count(b"\n")
            left -= len(chunk)
        return rows


def rows_in(span: Span) -> int:
    """Records of a Parquet span, from the file's footer."""
    import pyarrow.parquet as pq

    file_system, path = resolve(span.source.uri)
    with file_system.open_input_file(path) as file:
        metadata = pq.read_metadata(file)
        return sum(metadata.row_group(group).num_rows for group in range(span.start, span.end))


def rejected_items(rows: Iterable[LedgerRow], reload: Callable[[str], LedgerRow | None]) -> Iterator[dict[str, Any]]:
    """Everything that was left out, as plain data: file, absolute row, byte offset, reason, detail, excerpt.

    Args:
        rows: all finished pieces in the order of the input, copies of earlier ones included (rows of a file are counted
            over all of them); their lists of rejects may have been taken out to save memory.
        reload: gives a row with its list; its spans may be those of a copy.
    """
    rows = list(rows)
    base = _rows_before_each_span(rows)
    first: dict[str, LedgerRow] = {}
    for row in rows:
        if row.key in first:
            yield from _copies(row, first[row.key], base)
            continue
        first[row.key] = row
        if not row.rejects["counts"]:
            continue
        full = (reload(row.key) or row).at(row.spans)
        listed: dict[str, int] = {}
        for item in full.rejects["kept"]:
            span = row.spans[item["span"]]
            number = item["row"] + base[span["uri"], span["start"]] if item["row"] else None
            reason = item["reason"]
            listed[reason] = listed.get(reason, 0) + 1
            yield {
                "file": span["uri"],
                "row": number,
                "byte_offset": item["byte_offset"],
                "reason": reason,
                "detail": item["detail"] or REASONS[reason],
                "excerpt": item["excerpt"],
            }
        for reason, count in full.rejects["counts"].items():
            if count > listed.get(reason, 0):
                more = count - listed.get(reason, 0)
                files = sorted({span["uri"] for span in row.spans})
                yield {
                    "file": files[0],
                    "row": None,
                    "reason": reason,
                    "detail": f"and {more:,} more like it",
                    "files": files,
                }


def _copies(row: LedgerRow, first: LedgerRow, base: dict[tuple[str, int], int]) -> Iterator[dict[str, Any]]:
    """An entry for each part of a file whose bytes were taken from elsewhere."""
    for span, original in zip(row.spans, first.spans, strict=True):
        yield {
            "file": span["uri"],
            "row": base[span["uri"], span["start"]] + 1,
            "byte_offset": None if span["kind"] == "parquet" else span["start"],
            "reason": "duplicate",
            "detail": f"{_part(span)}: the same as {_part(original)} of {original['uri']}; left out",
        }


def _part(span: dict[str, Any]) -> str:
    unit = "row groups" if span["kind"] == "parquet" else "bytes"
    return f"{unit} {span['start']}..{span['end']}"


def _rows_before_each_span(rows: list[LedgerRow]) -> dict[tuple[str, int], int]:
    spans = sorted(
        (span["uri"], span["start"], count)
        for row in rows
        for span, count in zip(row.spans, row.span_rows, strict=True)
    )
    before: dict[tuple[str, int], int] = {}
    uri, total = "", 0
    for name, start, count in spans:
        if name != uri:
            uri, total = name, 0
        before[name, start] = total
        total += count
    return before
