"""Lines of a span with their numbers and offsets; a line over the limit is skipped without being held."""

from collections.abc import Iterator
from typing import NamedTuple

from pmlm_core.corpus.pieces import Span
from pmlm_core.corpus.readers.streams import BrokenStreamError, chunks
from pmlm_core.corpus.rejects import ReadProgress

_BOM = b"\xef\xbb\xbf"
_HEAD = 400  # bytes of a skipped line that are kept for the report


class Line(NamedTuple):
    """One line without its end. Where `reason` is set, the line was left out and `data` is its beginning."""

    row: int
    offset: int | None
    data: bytes
    reason: str | None = None
    detail: str = ""


def lines(span: Span, limit: int, index: int, progress: ReadProgress) -> Iterator[Line]:
    """Yield the lines of `span`; `progress.rows[index]` follows along.

    Args:
        span: what to read.
        limit: longest line in bytes.
        index: number of the span in its piece.
        progress: counts rows and bytes.
    """
    found = _lines(span, limit, index, progress)
    first = next(found, None)
    if first is None:
        return
    yield first._replace(data=first.data.removeprefix(_BOM)) if span.start == 0 else first
    yield from found


def _lines(span: Span, limit: int, index: int, progress: ReadProgress) -> Iterator[Line]:
    # In a compressed file an offset into the text would be of no use to anyone who opens the file.
    base = None if span.source.compression else span.start
    row, position = 0, 0  # lines finished; bytes before the current line
    parts: list[bytes] = []  # the current line so far, from earlier chunks
    held = 0
    overflow = False
    try:
        for chunk in chunks(span):
            pieces = chunk.split(b"\n")
            last = pieces.pop()
            for piece in pieces:
                if parts or overflow:
                    piece = b"".join([*parts, piece])
                    length = held + len(piece) - sum(map(len, parts))
                    parts, held = [], 0
                else:
                    length = len(piece)
                row += 1
                progress.rows[index] = row
                progress.span_bytes[index] += length + 1
                offset = None if base is None else base + position
                if overflow or length > limit:
                    overflow = False
                    yield Line(row, offset, piece[:_HEAD], "too_long", _too_long(length, limit))
                else:
                    yield Line(row, offset, piece.removesuffix(b"\r"))
                position += length + 1
            held += len(last)
            if last and not overflow:
                parts.append(last)
                if held > limit:
                    overflow = True
                    parts = [b"".join(part[:_HEAD] for part in parts[:2])[:_HEAD]]
    except BrokenStreamError as error:
        if error.reason == "unreadable":
            yield Line(0, None, b"", error.reason, error.detail)
            return
        progress.rows[index] = row + 1
        progress.span_bytes[index] += held
        yield Line(row + 1, None, b"".join(parts)[:_HEAD], error.reason, f"{error.detail}; the rows before are kept")
        return
    if held:
        row += 1
        progress.rows[index] = row
        progress.span_bytes[index] += held
        offset = None if base is None else base + position
        data = b"".join(parts)
        if overflow or held > limit:
            yield Line(row, offset, data[:_HEAD], "too_long", _too_long(held, limit))
        else:
            yield Line(row, offset, data.removesuffix(b"\r"))


def _too_long(length: int, limit: int) -> str:
    return f"{length:,} bytes; max_document_bytes is {limit:,}"
