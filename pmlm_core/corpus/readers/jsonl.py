"""JSON lines: an object a line, the text in one field."""

import json
from collections.abc import Iterator
from typing import Any

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Span
from pmlm_core.corpus.readers.lines import lines
from pmlm_core.corpus.readers.text import Found, checked, decoded
from pmlm_core.corpus.rejects import ReadProgress, Reject, excerpt


def read(span: Span, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    """Yield the documents and rejects of a span."""
    for row, offset, data, reason, detail in lines(span, fmt.max_document_bytes, index, progress):
        if reason is not None:
            yield Reject(index, row, offset, reason, excerpt(data), detail)
        elif data and not data.isspace():
            line = decoded(data, row, index, offset)
            yield line if isinstance(line, Reject) else _parsed(line.text, row, index, offset, fmt.text_field)


def _parsed(line: str, row: int, index: int, offset: int | None, field: str) -> Found:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Reject(index, row, offset, "invalid_json", excerpt(line), str(error))
    if not isinstance(record, dict):
        return Reject(index, row, offset, "invalid_json", excerpt(line), f"a {type(record).__name__}, not an object")
    if field not in record:
        names = ", ".join(map(excerpt, list(record)[:8])) or "none"
        detail = f"no field '{field}'; fields here: {names}; --text_field says which holds the text"
        return Reject(index, row, offset, "missing_field", excerpt(line), detail)
    text = record[field]
    if not isinstance(text, str):
        kind = "null" if text is None else type(text).__name__
        return Reject(index, row, offset, "not_text", excerpt(line), f"field '{field}' holds {kind}")
    if "\\u" in line and (at := _lone_surrogate(text)) is not None:
        safe = text[max(0, at - 30) : at + 50].encode("utf-8", "backslashreplace")
        return Reject(
            index, row, offset, "invalid_utf8", excerpt(safe), f"lone surrogate at character {at} of the text"
        )
    return checked(text, row, index, offset)


def _lone_surrogate(text: str) -> int | None:
    """Where an escape like \\ud800 left half a character, which UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None
