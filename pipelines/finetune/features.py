"""Encoded examples on disk: Arrow files, found again by what they were made of, written whole or not at all.

    CACHE_DIR/rte-train-1f0e.../
        part-00000.arrow ...   one record batch for every few thousand features, in the order of the examples
        manifest.json          how many examples and features each part holds

A row is one feature; its columns are lists of integers, numbers and truth values. They are read through a memory map.
"""

import json
import shutil
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pmlm_core.errors import DataError

MANIFEST = "manifest.json"
_BATCH = 4096
Feature = dict[str, Any]


def write_part(path: Path, chunks: Iterable[Sequence[Feature]], first_example: int) -> dict[str, Any]:
    """Write the features of consecutive examples; returns the part's line of the manifest.

    Args:
        chunks: features; an "example" among their fields counts from the first of all these examples.
        first_example: place of that one among all examples of the split.
    """
    writer, count, schema = None, 0, None
    with pa.OSFile(str(path), "wb") as file:
        for chunk in chunks:
            for at in range(0, len(chunk), _BATCH):
                rows = chunk[at : at + _BATCH]
                if first_example and "example" in rows[0]:
                    rows = [{**row, "example": row["example"] + first_example} for row in rows]
                if schema is None:
                    schema = _schema(rows)
                    writer = pa.ipc.new_file(file, schema)
                assert writer is not None
                columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                count += len(rows)
        if writer is not None:
            writer.close()
    return {"name": path.name, "features": count, "first_example": first_example}


def _schema(rows: Sequence[Feature]) -> pa.Schema:
    """Types by the first value of each column; a column without values (labels of a test) is left out."""
    fields = []
    for name in rows[0]:
        value = next((row[name] for row in rows if row.get(name) is not None), None)
        if isinstance(value, bool | np.bool_):
            fields.append(pa.field(name, pa.bool_()))
        elif isinstance(value, int | np.integer):
            fields.append(pa.field(name, pa.int64()))
        elif isinstance(value, float | np.floating):
            fields.append(pa.field(name, pa.float64()))
        elif value is not None:
            boolean = len(value) and isinstance(value[0], bool | np.bool_)
            fields.append(pa.field(name, pa.list_(pa.bool_() if boolean else pa.int32())))
    return pa.schema(fields)


class Drafts:
    """A folder of features in the making: hidden until `publish` gives it its name."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(f".writing-{final.name}-{uuid.uuid4().hex[:8]}")
        self.path.mkdir(parents=True)

    def publish(self, parts: Sequence[dict[str, Any]]) -> Path:
        """Write the manifest of the finished parts, in order, and `settle`."""
        content = {"parts": list(parts), "features": sum(part["features"] for part in parts)}
        (self.path / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return self.settle()

    def settle(self) -> Path:
        """Give a folder with all its files its final name; another process may have been quicker."""
        try:
            self.path.rename(self.final)
        except OSError:
            if not (self.final / MANIFEST).is_file():
                raise
            self.discard()
        return self.final

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.path, ignore_errors=True)


class Features:
    """The features of a split, by number.

    Attributes:
        lengths: tokens of every feature, what it costs to compute, [features]; targets count along.

    Raises:
        DataError: the folder is not whole.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            self._batches = [batch for part in manifest["parts"] for batch in _batches(folder / part["name"])]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(f"encoded examples in {folder} cannot be read ({error}): remove that folder") from None
        counts = [batch.num_rows for batch in self._batches]
        if sum(counts) != manifest["features"]:
            raise DataError(f"encoded examples in {folder} are not whole: remove that folder")
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._columns: dict[int, dict[str, tuple[np.ndarray, np.ndarray | None]]] = {}
        self.lengths = np.concatenate([_lengths(batch) for batch in self._batches] or [np.empty(0, np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, numbers: Iterable[int]) -> list[Feature]:
        """Features by number; lists of integers come as numpy arrays that must not be written to."""
        return [self._row(int(number)) for number in numbers]

    def _row(self, number: int) -> Feature:
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        if at not in self._columns:
            self._columns[at] = {name: _numpy(self._batches[at], name) for name in self._batches[at].schema.names}
        row = number - int(self._starts[at])
        return {
            name: values[row].item() if offsets is None else values[offsets[row] : offsets[row + 1]]
            for name, (values, offsets) in self._columns[at].items()
        }


def _batches(path: Path) -> list[pa.RecordBatch]:
    if not path.stat().st_size:  # a part without features: passages cut off before their answers
        return []
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def _numpy(batch: pa.RecordBatch, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    column = batch.column(name)
    if isinstance(column, pa.ListArray):
        return column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
    return column.to_numpy(zero_copy_only=False), None


def _lengths(batch: pa.RecordBatch) -> np.ndarray:
    total = _sizes(batch, "input_ids")
    if "target_ids" in batch.schema.names:
        total = total + 2 * _sizes(batch, "target_ids")  # a pseudo mask and a true token for each
    return total


def _sizes(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return np.diff(batch.column(name).offsets.to_numpy()).astype(np.int64)
