"""Writing shards: windows and their masked views as an Arrow IPC file whose bytes depend on its content alone."""

import io
from hashlib import sha256
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmlm_core.corpus.manifest import FORMAT_VERSION, ShardEntry
from pmlm_core.corpus.masking import MaskedView
from pmlm_core.corpus.packing import Windows
from pmlm_core.errors import DataError

BATCH_ROWS = 1024  # rows of every record batch but the last, however the rows were fed
COLUMNS_PER_VIEW = 3


def shard_schema(*, views: int, vocab_size: int, max_length: int, tokenizer_fingerprint: str) -> pa.Schema:
    """Columns and metadata of a shard.

    `input_ids` list, `segment_start` uint16, and for each view v lists `positions_v`, `step_lengths_v`,
    `replacements_v`. Token ids take 16 bits where the vocabulary allows it, positions 16, step lengths 8; no nulls.
    """
    token = pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()

    def ragged(name: str, value: pa.DataType) -> pa.Field:
        return pa.field(name, pa.list_(pa.field("item", value, nullable=False)), nullable=False)

    columns = [ragged("input_ids", token), pa.field("segment_start", pa.uint16(), nullable=False)]
    for v in range(views):
        columns += [
            ragged(f"positions_{v}", pa.uint16()),
            ragged(f"step_lengths_{v}", pa.uint8()),
            ragged(f"replacements_{v}", token),
        ]
    metadata = {
        "pmlm.format_version": str(FORMAT_VERSION),
        "pmlm.tokenizer_fingerprint": tokenizer_fingerprint,
        "pmlm.vocab_size": str(vocab_size),
        "pmlm.max_length": str(max_length),
        "pmlm.views": str(views),
        "pmlm.batch_rows": str(BATCH_ROWS),
    }
    return pa.schema(columns, metadata=metadata)


class ShardWriter:
    """Writes one shard.

    Equal rows give equal bytes, however they are divided over `write` calls. Memory held: one record batch. Used as a
    context manager it closes the shard at the end of the block; after an exception the file is left without its footer,
    so nobody can take it for a finished one.

    Args:
        target: path of a local file, or a binary file object (left open).
        views: number of masked views every row comes with.
        vocab_size: every id lies below it.
        max_length: no window is longer.
        tokenizer_fingerprint: of the tokenizer that gave the ids.
    """

    def __init__(
        self, target: str | BinaryIO, *, views: int, vocab_size: int, max_length: int, tokenizer_fingerprint: str
    ) -> None:
        self.rows = 0
        self.tokens = 0
        self.masked_tokens = 0
        self._views, self._vocab_size, self._max_length = views, vocab_size, max_length
        self._schema = shard_schema(
            views=views, vocab_size=vocab_size, max_length=max_length, tokenizer_fingerprint=tokenizer_fingerprint
        )
        self._owned = open(target, "wb") if isinstance(target, str) else None  # noqa: SIM115
        self._sink = _Sink(self._owned or target)  # type: ignore[arg-type]
        self._writer = pa.ipc.new_file(self._sink, self._schema)
        self._columns = [_Column(f.type) for f in self._schema]
        self._pending_rows = 0
        self._parts: list[tuple[int, str]] = []

    def write(self, windows: Windows, views: list[MaskedView]) -> None:
        """Append windows with their views.

        Raises:
            DataError: views missing or of another number of rows, ids outside the vocabulary, or a window too long.
        """
        self._check(windows, views)
        begin = 0
        while begin < len(windows):
            end = min(len(windows), begin + BATCH_ROWS - self._pending_rows)
            self._columns[0].add(windows.input_ids, windows.offsets, begin, end)
            self._columns[1].add(windows.segment_starts, None, begin, end)
            for v, view in enumerate(views):
                positions, steps, replacements = self._columns[2 + COLUMNS_PER_VIEW * v :][:COLUMNS_PER_VIEW]
                positions.add(view.positions, view.offsets, begin, end)
                steps.add(view.step_lengths, view.step_offsets, begin, end)
                replacements.add(view.replacement_ids, view.offsets, begin, end)
            self._pending_rows += end - begin
            if self._pending_rows == BATCH_ROWS:
                self._write_batch()
            begin = end
        self.rows += len(windows)
        self.tokens += len(windows.input_ids)
        self.masked_tokens += len(views[0].positions) if views else 0

    def close(self) -> int:
        """Write what is pending and the footer; gives the number of rows."""
        if self._pending_rows:
            self._write_batch()
        self._writer.close()
        if self._owned:
            self._owned.close()
        return self.rows

    def entry(self, path: str) -> ShardEntry:
        """What the manifest says of this shard, once closed; `path` is relative to the manifest's folder."""
        return ShardEntry(
            path=path,
            rows=self.rows,
            tokens=self.tokens,
            masked_tokens=self.masked_tokens,
            bytes=self._sink.tell(),
            sha256=self._sink.digest.hexdigest(),
            part_bytes=[nbytes for nbytes, _ in self._parts],
            part_sha256=[digest for _, digest in self._parts],
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._owned:
            self._owned.close()

    def _check(self, windows: Windows, views: list[MaskedView]) -> None:
        if len(views) != self._views or any(len(view) != len(windows) for view in views):
            raise DataError(
                f"A shard of {self._views} views was given {len(views)} views of {[len(v) for v in views]} rows "
                f"for {len(windows)} windows; every window needs every view."
            )
        if not len(windows):
            return
        for ids in (windows.input_ids, *(view.replacement_ids for view in views)):
            if len(ids) and (ids.min() < 0 or ids.max() >= self._vocab_size):
                raise DataError(
                    f"Rows {self.rows}..{self.rows + len(windows) - 1} hold ids {ids.min()}..{ids.max()}, outside the "
                    f"vocabulary of {self._vocab_size}; the tokenizer that made them is not the one that was declared."
                )
        longest = int(np.diff(windows.offsets).max())
        if longest > self._max_length:
            raise DataError(
                f"A window of {longest} tokens was given to a shard whose max_length is {self._max_length}."
            )

    def _write_batch(self) -> None:
        arrays = [column.take() for column in self._columns]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._parts.append(self._sink.cut())
        self._pending_rows = 0


class _Column:
    """Slices of one column, until a record batch is full."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._dtype = (kind.value_type if pa.types.is_list(kind) else kind).to_pandas_dtype()
        self._values: list[npt.NDArray[np.int32]] = []
        self._lengths: list[npt.NDArray[np.int64]] = []

    def add(self, values: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64] | None, begin: int, end: int) -> None:
        """Take rows begin..end; copied, narrowed, because the caller may reuse its arrays."""
        if offsets is None:
            self._values.append(values[begin:end].astype(self._dtype))
        else:
            self._values.append(values[offsets[begin] : offsets[end]].astype(self._dtype))
            self._lengths.append(np.diff(offsets[begin : end + 1]))

    def take(self) -> pa.Array:
        values = pa.array(np.concatenate(self._values))
        if pa.types.is_list(self._kind):
            lengths = np.concatenate(self._lengths)
            offsets = np.zeros(len(lengths) + 1, np.int32)
            np.cumsum(lengths, out=offsets[1:])
            values = pa.ListArray.from_arrays(pa.array(offsets), values, type=self._kind)
        self._values, self._lengths = [], []
        return values


class _Sink(io.RawIOBase):
    """Hashes what passes through, so that a shard need not be read again for its digests."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._written = self._begun = 0
        self.digest, self._of_part = sha256(), sha256()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def, override]
        self._target.write(data)
        self.digest.update(data)
        self._of_part.update(data)
        self._written += len(data)
        return len(data)

    def cut(self) -> tuple[int, str]:
        """End a part; gives its size and digest."""
        part = self._written - self._begun, self._of_part.hexdigest()
        self._begun, self._of_part = self._written, sha256()
        return part

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        self._target.flush()
