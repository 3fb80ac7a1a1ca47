"""Rows of a part of a file, whatever its form."""

import csv
from collections.abc import Iterator
from itertools import islice

from pipelines.predict.inputs import SQUAD, Input, Part
from pmlm_core.corpus.pieces import Span
from pmlm_core.corpus.readers.lines import Line, lines
from pmlm_core.corpus.rejects import ReadProgress
from pmlm_core.corpus.sources import Source
from pmlm_core.errors import DataError
from pmlm_core.tasks.base import BadRow
from pmlm_core.tasks.rows import CsvLines, Row, RowError, bad_row, json_row, parquet_rows, table_row, unclosed
from pmlm_core.tasks.squad import question_rows

TOO_LONG = "too_long"


def read_part(each: Input, part: Part, max_bytes: int) -> Iterator[Row | BadRow]:
    """Yield the rows of a part; blank lines are none.

    Raises:
        DataError: the file has changed or cannot be read.
        OSError: the disk or the network failed.
    """
    match each.form:
        case ".parquet":
            columns = tuple(dict.fromkeys(each.roles.values()))
            yield from parquet_rows(each.uri, columns, first=part.first, count=part.count)
        case str() if each.form == SQUAD:
            yield from islice(question_rows(each.uri), part.first - 1, part.first - 1 + part.count)
        case ".csv":
            yield from _csv_rows(each, part_lines(each, part, max_bytes), part.first)
        case _:
            for line in part_lines(each, part, max_bytes):
                if line.reason == TOO_LONG:
                    yield _too_long(each, line.row, line.detail)
                elif each.form == ".tsv":
                    if line.data:
                        yield table_row(each.uri, line.row, each.names, decoded(line).split("\t"))
                elif line.data and not line.data.isspace():
                    yield json_row(each.uri, line.row, decoded(line))


def part_lines(each: Input, part: Part, max_bytes: int) -> Iterator[Line]:
    """Lines with their numbers in the file.

    Raises:
        DataError: the file is damaged where it was not before.
    """
    packed = each.compression is not None
    stop = part.first + part.count
    for line in file_lines(each, 0 if packed else part.start, each.size if packed else part.stop, max_bytes):
        number = line.row if packed else line.row + part.first - 1
        if number >= stop:
            return
        if line.reason not in (None, TOO_LONG):
            raise DataError(f"{each.uri} has changed, or cannot be read any more: {line.detail}")
        if number >= part.first:
            yield line._replace(row=number)


def file_lines(each: Input, start: int, stop: int, max_bytes: int) -> Iterator[Line]:
    """Lines of a range of bytes, counted from 1; all of a packed file."""
    source = Source(each.uri, each.size, each.mtime_ns, "text_lines", each.compression)
    span = Span(source, start, stop, first=start == 0, last=stop == each.size, weight=stop - start)
    return lines(span, max_bytes, 0, ReadProgress())


def decoded(line: Line) -> str:
    """Text of a line; what is not UTF-8 is found where a field is used (`pmlm_core.tasks.lines`)."""
    return line.data.decode("utf-8", "surrogateescape")


def csv_records(found: Iterator[Line], first: int) -> Iterator[tuple[int, int, list[str] | RowError]]:
    """Records of CSV with the numbers of their first and last line.

    Args:
        first: number of the first line.
    """
    csv.field_size_limit(1 << 30)  # lines are limited already
    long: list[Line] = []

    def texts() -> Iterator[str]:
        for line in found:
            if line.reason == TOO_LONG:
                long.append(line)
            yield decoded(line) + "\n"

    rest = CsvLines(texts())
    reader = csv.reader(rest)
    while True:
        begin = first + reader.line_num
        try:
            values: list[str] | RowError = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            values = RowError("invalid CSV", f"not CSV: {error}")
        if rest.ended:
            values = unclosed(reader.line_num - (begin - first) - 1)
        if long:
            values = RowError("row too long", long[0].detail)
            long.clear()
        yield begin, first + reader.line_num - 1, values


def _csv_rows(each: Input, found: Iterator[Line], first: int) -> Iterator[Row | BadRow]:
    for number, _, values in csv_records(found, first):
        if isinstance(values, RowError):
            yield bad_row(each.uri, number, values)
        elif values:
            yield table_row(each.uri, number, each.names, values)


def _too_long(each: Input, number: int, detail: str) -> BadRow:
    return bad_row(each.uri, number, RowError("row too long", detail.replace("max_document_bytes", "max_row_bytes")))
