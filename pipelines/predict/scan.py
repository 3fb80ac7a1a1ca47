"""Reading every file through once: how many rows it has, where they begin, which columns hold what.

What cannot be used at all (a missing column, a file of another form) ends here, before a model is loaded. A packed file
that ends early keeps its rows up to there; the rest is one entry among the rejects.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.predict.fields import found_in
from pipelines.predict.inputs import SQUAD, Input, Part, Piece
from pipelines.predict.read import csv_records, decoded, file_lines
from pmlm_core.corpus.readers.lines import Line
from pmlm_core.errors import DataError
from pmlm_core.storage import is_transport_error, resolve
from pmlm_core.tasks.base import BadRow
from pmlm_core.tasks.lines import without_mark
from pmlm_core.tasks.rows import Row, RowError, json_row
from pmlm_core.tasks.squad import question_rows

_SAMPLE = 20
_PIECE_BYTES = 32 << 20
_NEAR, _REREAD = 64 << 20, 64
_BROKEN = ("truncated_file", "corrupt_file")


@dataclass(frozen=True)
class Columns:
    """What to look for; see `pipelines.predict.fields.wanted`."""

    usual: Mapping[str, tuple[str, ...]]
    needed: frozenset[str]
    task: str

    def of(self, file: str, names: list[str]) -> dict[str, str]:
        return found_in(file, names, self.usual, self.needed, self.task)


@dataclass
class Scan:
    """All files, cut.

    Attributes:
        broken: entries of `rejects.jsonl` for files that end early.
    """

    piece_rows: int
    max_bytes: int
    columns: Columns
    inputs: list[Input] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    broken: list[dict[str, Any]] = field(default_factory=list)
    _parts: list[Part] = field(default_factory=list)
    _rows: int = 0
    _bytes: int = 0

    def add(self, each: Input) -> None:
        """Read a file through and cut it.

        Raises:
            DataError: it cannot be used.
        """
        reader = _Rows(each, self.columns, self.max_bytes)
        first, start, rows, since, ahead, last = 0, 0, 0, 0, 0, (0, 0)
        for begin, offset, after, end, nbytes in reader.marks():
            if not since:
                first, start = begin, offset
            rows, since = rows + 1, since + 1
            self._rows, self._bytes = self._rows + 1, self._bytes + nbytes
            ahead += nbytes
            # A packed file is unpacked from its beginning for every piece: pieces grow with what lies before them, so
            # that this is about _REREAD times the file in all, however long it is.
            least = (ahead - _NEAR) // _REREAD if each.compression or each.form == SQUAD else 0
            full = self._rows >= self.piece_rows or self._bytes >= _PIECE_BYTES
            if full and self._bytes >= least:
                self._parts.append(Part(len(self.inputs), first, after - first, start, end))
                self._close()
                since = 0
            last = (after, end)
        if since:
            self._parts.append(Part(len(self.inputs), first, last[0] - first, start, last[1]))
        if reader.broken is not None:
            self.broken.append(reader.broken)
        self.inputs.append(replace(reader.each, rows=rows))

    def finish(self) -> None:
        """Close the last piece."""
        if self._rows:
            self._close()

    def _close(self) -> None:
        self.pieces.append(Piece(len(self.pieces), self._rows, tuple(self._parts)))
        self._parts, self._rows, self._bytes = [], 0, 0


Mark = tuple[int, int, int, int, int]
"""Of a row: number and offset of its first line, number and offset of the line after it, its bytes."""


class _Rows:
    """One file's rows."""

    def __init__(self, each: Input, columns: Columns, max_bytes: int) -> None:
        self.each = each
        self.broken: dict[str, Any] | None = None
        self._columns = columns
        self._max_bytes = max_bytes
        self._starts: dict[int, int] = {}

    def marks(self) -> Iterator[Mark]:
        match self.each.form:
            case ".parquet":
                yield from self._parquet()
            case str() if self.each.form == SQUAD:
                yield from self._squad()
            case ".csv":
                yield from self._with_ends(self._csv())
            case _:
                yield from self._with_ends(self._one_line_each())

    def _settle(self, names: list[str], header: bool = False) -> None:
        roles = self._columns.of(self.each.uri, names)
        self.each = replace(self.each, roles=roles, names=tuple(names) if header else ())

    def _lines(self) -> Iterator[Line]:
        """Lines up to the end or the break; where they start is kept until a row has been told."""
        position = 0
        for line in file_lines(self.each, 0, self.each.size, self._max_bytes):
            if line.reason in _BROKEN:
                detail = f"{self.each.uri}, row {line.row}: the file ends early or is damaged ({line.detail})"
                reason = str(line.reason).replace("_", " ")
                self.broken = {
                    "file": self.each.uri, "row": line.row, "field": None, "reason": reason, "detail": detail,
                }  # fmt: skip
                return
            if line.reason == "unreadable":
                raise DataError(f"{self.each.uri} may not be read: {line.detail}")
            if line.row == 1:
                without_mark(line.data, self.each.uri)  # refuses UTF-16
            self._starts[line.row] = position if line.offset is None else line.offset
            position += len(line.data) + 1
            yield line

    def _with_ends(self, rows: Iterator[tuple[int, int]]) -> Iterator[Mark]:
        """Rows with the place where the next line starts, which is known only when that has been read."""
        before: tuple[int, int] | None = None
        for first, last in rows:
            if before is not None:
                yield self._mark(*before, self._starts[before[1] + 1])
                for number in [number for number in self._starts if number < first]:
                    del self._starts[number]
            before = (first, last)
        if before is not None:
            yield self._mark(*before, self._starts.get(before[1] + 1, self.each.size))

    def _mark(self, first: int, last: int, end: int) -> Mark:
        start = self._starts[first]
        return first, start, last + 1, end, max(0, end - start)

    def _one_line_each(self) -> Iterator[tuple[int, int]]:
        found = self._lines()
        if self.each.form == ".tsv":
            header = next(found, None)
            if header is None:
                return
            self._settle(decoded(header).split("\t"), header=True)
        else:
            sample = list(islice((line for line in found if line.data and not line.data.isspace()), _SAMPLE))
            self._settle_json(sample)
            found = chain(sample, found)
        for line in found:
            if line.data and (self.each.form == ".tsv" or not line.data.isspace()):
                yield line.row, line.row

    def _settle_json(self, sample: list[Line]) -> None:
        if sample and sample[0].data.lstrip().startswith(b"["):
            raise DataError(
                f"{self.each.uri} is one JSON array; JSON lines are needed, one object a line (jq -c '.[]' makes them)"
            )
        rows = [json_row(self.each.uri, line.row, decoded(line)) for line in sample if line.reason is None]
        names = dict.fromkeys(name for row in rows if isinstance(row, Row) for name in row.fields)
        if rows and not names:
            bad = next(row for row in rows if isinstance(row, BadRow))
            raise DataError(f"{bad.detail}; no row at the beginning of the file is a JSON object")
        if rows:
            self._settle(list(names))

    def _csv(self) -> Iterator[tuple[int, int]]:
        for first, last, values in csv_records(self._lines(), 1):
            if not self.each.names:
                if isinstance(values, RowError):
                    raise DataError(f"{self.each.uri}, row {first}: {values.detail}; the names of columns are needed")
                self._settle(values, header=True)
            elif values:
                yield first, last

    def _squad(self) -> Iterator[Mark]:
        found = question_rows(self.each.uri)
        sample = list(islice(found, _SAMPLE))
        names = dict.fromkeys(name for row in sample if isinstance(row, Row) for name in row.fields)
        if sample:
            self._settle(list(names))
        for number, row in enumerate(chain(sample, found), 1):
            nbytes = len(row.fields.get("context") or "") if isinstance(row, Row) else 0
            yield number, 0, number + 1, 0, nbytes

    def _parquet(self) -> Iterator[Mark]:
        file_system, path = resolve(self.each.uri)
        try:
            with file_system.open_input_file(path) as file:
                table = pq.ParquetFile(file)
                names, metadata = table.schema_arrow.names, table.metadata
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and is_transport_error(error):
                raise
            detail = " ".join(str(error).split())[:300]
            raise DataError(f"{self.each.uri} cannot be read as Parquet: {detail}") from None
        self._settle(names)
        nbytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        for number in range(1, metadata.num_rows + 1):
            yield number, 0, number + 1, 0, nbytes // metadata.num_rows
