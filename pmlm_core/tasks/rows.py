"""Rows of TSV, CSV, JSON lines and Parquet files as one thing: a number for messages and fields by name.

A file that lacks a needed column is an error; a row that cannot be used is a `BadRow` among the others.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pmlm_core.errors import DataError, UnknownFormError
from pmlm_core.storage import resolve
from pmlm_core.tasks.base import BadRow
from pmlm_core.tasks.files import form
from pmlm_core.tasks.lines import lines

E = TypeVar("E")
TABLES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
_MAX_FIELD = 16 << 20
_BATCH_ROWS = 256
_HOPELESS = 20


class Row(NamedTuple):
    """A row that was read. `number` is its line in the file from 1 (its record in Parquet)."""

    file: str
    number: int
    fields: Mapping[str, Any]


class RowError(Exception):
    """Why a row cannot be used: a few words to count by, and a clause for a person that names the field."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def bad_row(file: str, number: int, error: RowError) -> BadRow:
    # What was not UTF-8 (a column's name, say) is shown as escapes: this is printed, and written to a file.
    detail = error.detail.encode("utf-8", "backslashreplace").decode()
    return BadRow(file, number, error.reason, f"{file}, row {number}: {detail}")


def as_examples(rows: Iterable[Row | BadRow], make: Callable[[Row, int], E]) -> Iterator[E | BadRow]:
    """Turn rows into examples.

    Args:
        make: (row, its place from 0, bad rows counted) -> example, or raises `RowError`.
    """
    for place, row in enumerate(rows):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield make(row, place)
        except RowError as error:
            yield bad_row(row.file, row.number, error)


class MissingColumn(DataError):
    """A file lacks a column that is needed of every row."""


def read_rows(files: Sequence[str], required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """Yield the rows of files of any of `TABLES`, one file after the other.

    Args:
        required: columns every file must have.
        optional: further columns that are wanted.

    Raises:
        UnknownFormError: a file is of no known form.
        DataError: one lacks a required column, or is damaged.
    """
    for file in files:
        match form(file):
            case ".tsv" | ".txt":
                yield from tsv_rows(file, required)
            case ".csv":
                yield from csv_rows(file, required)
            case ".jsonl" | ".json":
                yield from json_rows(file, required)
            case ".parquet":
                yield from parquet_rows(file, required, optional)
            case suffix:
                raise UnknownFormError(f"{file}: form '{suffix}' is not known; use one of {', '.join(TABLES)}")


def tsv_rows(file: str, required: Sequence[str], header: Sequence[str] | None = None) -> Iterator[Row | BadRow]:
    """Rows of a tab-separated file in which a quotation mark is a character like any other, as GLUE's are.

    Args:
        header: names of the columns, for a file that does not begin with them.
    """
    names = header
    for number, line in enumerate(lines(file), 1):
        if names is None:
            names = line.split("\t")
            _check_columns(file, required, names)
        elif line:
            yield table_row(file, number, names, line.split("\t"))
    if names is None:
        raise DataError(f"{file} is empty")


def csv_rows(file: str, required: Sequence[str]) -> Iterator[Row | BadRow]:
    """Rows of a comma-separated file with a header, quoted as RFC 4180 says; a row's number is its first line's."""
    csv.field_size_limit(_MAX_FIELD)  # 128 KiB at first: too short for an article
    found = CsvLines(line + "\n" for line in lines(file))
    reader = csv.reader(found)
    names: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield bad_row(file, number, RowError("invalid CSV", f"not CSV: {error}"))
            continue
        if found.ended:
            yield bad_row(file, number, unclosed(reader.line_num - number))
            continue
        if names is None:
            names = values
            _check_columns(file, required, names)
        elif values:
            yield table_row(file, number, names, values)
    if names is None:
        raise DataError(f"{file} is empty, or its first line is not CSV")


class CsvLines:
    """Lines for `csv.reader`. A row that it gives when they have `ended` is one whose quotation mark was never closed:
    of every other row it has the end before it asks for more."""

    def __init__(self, found: Iterable[str]) -> None:
        self.ended = False
        self._found = iter(found)

    def __iter__(self) -> "CsvLines":
        return self

    def __next__(self) -> str:
        for line in self._found:
            return line
        self.ended = True
        raise StopIteration


def unclosed(more_lines: int) -> RowError:
    """Why such a row cannot be used; it has swallowed so many lines after its first."""
    swallowed = f"; the {more_lines} lines after it are lost with it" if more_lines else ""
    return RowError("invalid CSV", f"not CSV: a quotation mark is not closed up to the end of the file{swallowed}")


def json_rows(file: str, required: Sequence[str]) -> Iterator[Row | BadRow]:
    """Rows of a JSON-lines file; one whose first records all lack a required field is refused as a whole."""
    first, lacking = True, 0
    for number, line in enumerate(lines(file), 1):
        if not line or line.isspace():
            continue
        if first and line.lstrip().startswith("["):
            raise DataError(
                f"{file} is one JSON array; JSON lines are needed, one object a line (jq -c '.[]' makes them)"
            )
        row = json_row(file, number, line)
        if isinstance(row, BadRow):
            yield row
            continue
        first, record = False, row.fields
        if lacking >= 0:
            lacking = -1 if all(name in record for name in required) else lacking + 1
            if lacking == _HOPELESS:
                _check_columns(file, required, list(record), kind="field")
        yield row
    if lacking > 0:
        _check_columns(file, required, list(record), kind="field")


def json_row(file: str, number: int, line: str) -> Row | BadRow:
    """The row that a line of a JSON-lines file holds."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return bad_row(file, number, RowError("invalid JSON", f"not JSON: {error}"))
    if not isinstance(record, dict):
        return bad_row(file, number, RowError("invalid JSON", f"a {type(record).__name__}, not an object"))
    return Row(file, number, record)


def parquet_rows(
    file: str, required: Sequence[str], optional: Sequence[str] = (), first: int = 1, count: int | None = None
) -> Iterator[Row | BadRow]:
    """Records of a Parquet file, the wanted columns only: `count` of them (None for all) from number `first` on."""
    file_system, path = resolve(file)
    try:
        with file_system.open_input_file(path) as source:
            table = pq.ParquetFile(source, pre_buffer=False)
            _check_columns(file, required, table.schema_arrow.names)
            wanted = [name for name in table.schema_arrow.names if name in {*required, *optional}]
            stop = table.metadata.num_rows + 1 if count is None else first + count
            groups, number = _groups(table.metadata, first, stop)
            for batch in table.iter_batches(_BATCH_ROWS, groups, columns=wanted, use_threads=False):
                for i in range(batch.num_rows):
                    if first <= number + i < stop:
                        yield _record(file, number + i, batch, i)
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())[:300]}") from None


def _groups(metadata: pq.FileMetaData, first: int, stop: int) -> tuple[list[int], int]:
    """Row groups that hold records `first` up to `stop`, and the number of the first record in them."""
    groups: list[int] = []
    begins, number = first, 1
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if number < stop and number + rows > first:
            begins = begins if groups else number
            groups.append(group)
        number += rows
    return groups, begins


def _record(file: str, number: int, batch: pa.RecordBatch, i: int) -> Row | BadRow:
    fields = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            fields[name] = column[i].as_py()
        except UnicodeDecodeError as error:
            detail = f"field '{name}' is not UTF-8 at byte {error.start}"
            return bad_row(file, number, RowError("invalid UTF-8", detail))
    return Row(file, number, fields)


def table_row(file: str, number: int, names: Sequence[str], values: Sequence[str]) -> Row | BadRow:
    """The row of a table with these columns, unless it has more or fewer."""
    if len(values) != len(names):
        detail = f"{len(values)} fields where the columns are {len(names)} ({', '.join(names)})"
        return bad_row(file, number, RowError("wrong number of fields", detail))
    return Row(file, number, dict(zip(names, values, strict=True)))


def _check_columns(file: str, required: Sequence[str], names: Sequence[str], kind: str = "column") -> None:
    if missing := [name for name in dict.fromkeys(required) if name not in names]:
        shown = ", ".join(repr(each) for each in names[:20]) or "none"
        wanted = f"{kind}{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}"
        raise MissingColumn(f"{file}: no {wanted}; {kind}s found: {shown}")
    for name in required:
        if names.count(name) > 1:
            raise DataError(f"{file}: {kind} '{name}' is there {names.count(name)} times; rename all but one of them")
