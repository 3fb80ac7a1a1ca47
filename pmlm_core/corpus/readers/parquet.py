"""Parquet: a document a record, the text in one column. A damaged row group costs only itself."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Span
from pmlm_core.corpus.readers.text import Found, checked
from pmlm_core.corpus.rejects import ReadProgress, Reject, excerpt
from pmlm_core.storage import is_transport_error, resolve

# Records are decoded some megabytes at a time, and a column is read through a buffer instead of a row group at once:
# row groups of a gigabyte are common.
_BATCH_BYTES = 4 << 20
_MAX_BATCH_ROWS = 64
_BUFFER = 1 << 20


def read(span: Span, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    """Yield the documents and rejects of a span of row groups."""
    file_system, path = resolve(span.source.uri)
    try:
        with file_system.open_input_file(path) as source:
            yield from _read_file(source, span, index, fmt, progress)
    except PermissionError as error:
        yield Reject(index, 0, None, "unreadable", "", str(error))


def _read_file(source: Any, span: Span, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    progress.rows.setdefault(index, 0)
    try:
        # Of pages that bear a checksum a damaged one is told from text.
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield Reject(index, 0, None, "corrupt_file", "", _detail(error))
        return
    if wrong := _wrong_schema(file.schema_arrow, fmt.text_field):
        lost = sum(file.metadata.row_group(group).num_rows for group in range(span.start, span.end))
        progress.lost_rows += lost
        yield Reject(index, 0, None, "wrong_schema", "", f"{wrong}; rows left out: {lost:,}")
        return
    for group in range(span.start, span.end):
        before, rows_here = progress.rows[index], file.metadata.row_group(group).num_rows
        try:
            rows = _batch_rows(file.metadata.row_group(group), fmt.text_field)
            for batch in file.iter_batches(rows, row_groups=[group], columns=[fmt.text_field], use_threads=False):
                yield from _read_batch(batch.column(0), index, fmt, progress)
        except (pa.ArrowException, OSError) as error:
            row = progress.rows[index] + 1
            lost = before + rows_here - progress.rows[index]
            progress.lost_rows += lost
            detail = f"row group {group}: {_detail(error)}; rows left out: {lost:,} of {rows_here:,}"
            yield Reject(index, row, None, "corrupt_file", "", detail)
        progress.rows[index] = before + rows_here


def _wrong_schema(schema: pa.Schema, field: str) -> str:
    """Why no text can be had from `field`, and what to give instead; "" if it can."""
    found = schema.get_all_field_indices(field)
    if not found:
        names = ", ".join(map(excerpt, schema.names[:12]))
        return f"no column '{field}'; columns: {names}; --text_field says which holds the text"
    if len(found) > 1:
        return f"{len(found)} columns are called '{field}'; rename them in the file"
    kind = schema.field(found[0]).type
    if not _is_text(kind):
        texts = ", ".join(excerpt(each.name) for each in schema if _is_text(each.type)) or "none"
        return f"column '{field}' is {kind}, not text; columns of text, for --text_field: {texts}"
    return ""


def _batch_rows(group: Any, field: str) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    nbytes = sum(column.total_uncompressed_size for column in columns if column.path_in_schema == field)
    return int(min(_MAX_BATCH_ROWS, max(1, _BATCH_BYTES * group.num_rows // max(1, nbytes))))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _detail(error: Exception) -> str:
    if isinstance(error, OSError) and is_transport_error(error):
        raise error
    return " ".join(str(error).split())[:300]


def _read_batch(column: Any, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    for scalar in column:
        progress.rows[index] += 1
        row = progress.rows[index]
        try:
            text = scalar.as_py()
        except UnicodeDecodeError as error:
            yield Reject(index, row, None, "invalid_utf8", excerpt(error.object[:400]), str(error.reason))
            continue
        if text is None:
            yield Reject(index, row, None, "not_text", "", f"column '{fmt.text_field}' holds null")
            continue
        length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        progress.span_bytes[index] += length
        if length > fmt.max_document_bytes:
            detail = f"{length:,} bytes; max_document_bytes is {fmt.max_document_bytes:,}"
            yield Reject(index, row, None, "too_long", excerpt(text[:400]), detail)
            continue
        yield checked(text, row, index, None)
