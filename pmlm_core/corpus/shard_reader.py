"""Reading rows of one memory-mapped shard: compiled loops gather ragged rows out of the file seen as arrays.

Arrow parses the footer and says where the buffers of every record batch lie; after that no Arrow object is touched.
Every offset is checked before it is followed, so a damaged file gives an error, not a crash.
"""

from dataclasses import dataclass, replace

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmlm_core.corpus.manifest import Manifest, ShardEntry
from pmlm_core.corpus.shards import BATCH_ROWS, COLUMNS_PER_VIEW, shard_schema
from pmlm_core.errors import DataError

_MARK = 8  # bytes before the first message of an Arrow file
_REMAKE = "delete it and run `pmlm preprocess` again (it does only what is missing)"


@dataclass
class Rows:
    """B rows with one view each, as ragged arrays: row b owns the slice `offsets[b]:offsets[b + 1]`.

    Attributes:
        input_ids: int32 tokens, uncorrupted; sliced by `offsets`, int64 [B + 1].
        segment_starts: int32 [B], index of the first token of segment 1.
        positions: int32 masked positions in factorization order; sliced by `masked_offsets`, int64 [B + 1].
        replacement_ids: int32, what the corrupted input holds at `positions`; same slices.
        step_lengths: int32 positions of every step; sliced by `step_offsets`, int64 [B + 1].
    """

    input_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    segment_starts: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    masked_offsets: npt.NDArray[np.int64]
    replacement_ids: npt.NDArray[np.int32]
    step_lengths: npt.NDArray[np.int32]
    step_offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.segment_starts)

    def all_shown_as(self, token_id: int) -> "Rows":
        """The same rows with this token at every masked position, in place of the 80/10/10 corruption."""
        return replace(self, replacement_ids=np.full_like(self.replacement_ids, token_id))


@dataclass(frozen=True)
class Shard:
    """A mapped shard: one file seen as arrays of each width, and the places of its buffers.

    `table[batch, column]` = (index of the list offsets in `i32`, index of the values in the array of their width,
    number of values).
    """

    where: str
    i32: npt.NDArray[np.int32]
    u16: npt.NDArray[np.uint16]
    u8: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    table: npt.NDArray[np.int64]
    vocab_size: int

    def measure(
        self,
        slots: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        views: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> None:
        """Write into `lengths[slot]` the numbers of tokens, masked positions and steps of the row wanted in each slot.

        Args:
            slots: places in the batch that rows of this shard fill; `rows`: their numbers within the shard.
            views: view of every place of the batch; `lengths`: int64 [B, 3], written at `slots`.

        Raises:
            DataError: the shard's offsets are damaged.
        """
        self._complain(_measure(self.i32, self.table, BATCH_ROWS, slots, rows, views, lengths))

    def copy(
        self, slots: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], views: npt.NDArray[np.int64], out: Rows
    ) -> None:
        """Copy the rows measured before into their slices of `out`.

        Raises:
            DataError: a position lies outside its window or an id outside the vocabulary: the shard is damaged.
        """
        self._complain(
            _copy(
                self.i32, self.u16, self.u8, self.tokens, self.table, self.vocab_size, BATCH_ROWS, slots, rows, views,
                out.input_ids, out.offsets, out.segment_starts, out.positions, out.masked_offsets,
                out.replacement_ids, out.step_lengths, out.step_offsets,
            )
        )  # fmt: skip

    def _complain(self, bad_row: int) -> None:
        if bad_row >= 0:
            raise DataError(f"{self.where}, row {bad_row}: the shard is damaged; {_REMAKE}.")


def open_shard(path: str, entry: ShardEntry, manifest: Manifest) -> Shard:
    """Map a local shard and check that it is the one the manifest speaks of (size, schema, rows; not the digest).

    Raises:
        DataError: missing, truncated, damaged, or made with another tokenizer, format or setting.
    """
    mapped = _mapped(path)
    if mapped.size != entry.bytes:
        raise DataError(
            f"{path} has {mapped.size} bytes, the manifest says {entry.bytes}: truncated or changed; {_REMAKE}."
        )
    try:
        reader = pa.ipc.open_file(pa.BufferReader(mapped))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Arrow file ({error}); {_REMAKE}.") from None
    _check_schema(path, reader.schema, manifest)
    rows = [batch.num_rows for batch in batches]
    if sum(rows) != entry.rows or any(n != BATCH_ROWS for n in rows[:-1]):
        raise DataError(f"{path} holds {sum(rows)} rows, the manifest says {entry.rows}; {_REMAKE}.")
    return _seen(path, reader.schema, batches, mapped, manifest)


def open_batch(path: str, entry: ShardEntry, number: int, manifest: Manifest) -> Shard:
    """Map the part of a shard that ends with this record batch, as a shard that holds its rows alone.

    The part is known to be the one that was written (its digest was checked), so it has the manifest's schema.

    Raises:
        DataError: missing, or no record batch of the manifest's rows.
    """
    mapped = _mapped(path)
    schema = shard_schema(
        views=manifest.views,
        vocab_size=manifest.vocab_size,
        max_length=manifest.max_length,
        tokenizer_fingerprint=manifest.tokenizer_fingerprint,
    )
    source = pa.BufferReader(mapped)
    try:
        if number == 0:  # the file's mark and the schema come before it
            source.seek(_MARK)
            found = pa.ipc.read_schema(source)
            _check_schema(path, found, manifest)
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(source), schema)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataError(f"{path} is no whole record batch ({error}); {_REMAKE}.") from None
    if batch.num_rows != min(BATCH_ROWS, entry.rows - number * BATCH_ROWS):
        raise DataError(f"{path} holds {batch.num_rows} rows of {entry.path}, not what the manifest says; {_REMAKE}.")
    return _seen(path, schema, [batch], mapped, manifest)


def _mapped(path: str) -> pa.Buffer:
    try:
        with pa.memory_map(path) as file:  # closing it frees the descriptor; the mapping lives as long as the buffer
            return file.read_buffer()
    except FileNotFoundError:
        raise DataError(
            f"{path}: the manifest names this shard, but it is missing; run `pmlm preprocess` again."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be mapped: {error}") from None


def _seen(path: str, schema: pa.Schema, batches: list[pa.RecordBatch], mapped: pa.Buffer, manifest: Manifest) -> Shard:
    raw = np.frombuffer(mapped, np.uint8)
    words = raw[: len(raw) // 4 * 4]
    wide = schema.field(0).type.value_type == pa.uint32()
    return Shard(
        where=path,
        i32=words.view(np.int32),
        u16=words.view(np.uint16),
        u8=raw,
        tokens=words.view(np.uint32) if wide else words.view(np.uint16),
        table=_places(path, batches, mapped),
        vocab_size=manifest.vocab_size,
    )


def _check_schema(path: str, found: pa.Schema, manifest: Manifest) -> None:
    expected = shard_schema(
        views=manifest.views,
        vocab_size=manifest.vocab_size,
        max_length=manifest.max_length,
        tokenizer_fingerprint=manifest.tokenizer_fingerprint,
    )
    if found.equals(expected, check_metadata=True):
        return
    has, wants = found.metadata or {}, expected.metadata
    differing = [
        f"{name.decode().removeprefix('pmlm.')} is {has.get(name, b'absent').decode()}, not {value.decode()}"
        for name, value in wants.items()
        if has.get(name) != value
    ]
    raise DataError(
        f"{path} is not a shard of this block set: {'; '.join(differing) or 'its columns differ'}. "
        "Run `pmlm preprocess` again into a new output_dir."
    )


def _places(path: str, batches: list[pa.RecordBatch], mapped: pa.Buffer) -> npt.NDArray[np.int64]:
    """The `table` of a shard.

    Only lengths are looked at, not the buffers (`RecordBatch.validate` would read offsets of every column of every
    batch: a hundred places of the file for the sake of the one row that is wanted); values are checked when read.

    Raises:
        DataError: a buffer does not lie in the file, or is shorter than the rows need.
    """
    kinds = [(pa.types.is_list(kind), _width(kind)) for kind in (batches[0].schema.types if batches else [])]
    table = np.zeros((len(batches), len(kinds), 3), np.int64)
    base, end = mapped.address, mapped.address + mapped.size
    for b, batch in enumerate(batches):
        rows = batch.num_rows
        for c, (ragged, width) in enumerate(kinds):
            buffers = batch.column(c).buffers()
            needed, values = buffers[1], buffers[3 if ragged else 1]
            size = 4 * (rows + 1) if ragged else width * rows
            whole = needed is not None and needed.size >= size and base <= needed.address <= end - needed.size
            if whole and ragged:
                table[b, c, 0] = (needed.address - base) // 4
            if whole and values is not None and values.size:
                whole = base <= values.address <= end - values.size
                table[b, c, 1] = (values.address - base) // width
                table[b, c, 2] = values.size // width
            if not whole:
                raise DataError(f"{path}, record batch {b}: the shard is damaged; {_REMAKE}.")
    return table


def _width(kind: pa.DataType) -> int:
    """Bytes of a value."""
    return (kind.value_type if pa.types.is_list(kind) else kind).bit_width // 8


@numba.njit(cache=True, nogil=True)
def _span(i32, table, batch, column, row):  # type: ignore[no-untyped-def]
    """Begin and end of a row's values, or (0, -1) where they do not lie within the column."""
    at = table[batch, column, 0] + row
    begin, end = np.int64(i32[at]), np.int64(i32[at + 1])
    if 0 <= begin <= end <= table[batch, column, 2]:
        return begin, end
    return np.int64(0), np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _measure(i32, table, batch_rows, slots, rows, views, lengths):  # type: ignore[no-untyped-def]
    for i in range(len(slots)):
        slot, batch, row = slots[i], rows[i] // batch_rows, rows[i] % batch_rows
        first = 2 + COLUMNS_PER_VIEW * views[slot]
        for k, column in enumerate((0, first, first + 1)):
            begin, end = _span(i32, table, batch, column, row)
            if end < begin:
                return rows[i]
            lengths[slot, k] = end - begin
        begin, end = _span(i32, table, batch, first + 2, row)
        if end - begin != lengths[slot, 1]:
            return rows[i]
    return -1


@numba.njit(cache=True, nogil=True)
def _copy(  # type: ignore[no-untyped-def]
    i32, u16, u8, tokens, table, vocab_size, batch_rows, slots, rows, views,
    input_ids, offsets, segment_starts, positions, masked_offsets, replacement_ids, step_lengths, step_offsets,
):  # fmt: skip
    for i in range(len(slots)):
        slot, batch, row = slots[i], rows[i] // batch_rows, rows[i] % batch_rows
        first = 2 + COLUMNS_PER_VIEW * views[slot]
        n = offsets[slot + 1] - offsets[slot]
        source = table[batch, 0, 1] + _span(i32, table, batch, 0, row)[0]
        highest = np.int64(0)
        for j in range(n):
            token = np.int64(tokens[source + j])
            highest = max(highest, token)
            input_ids[offsets[slot] + j] = token
        segment_starts[slot] = u16[table[batch, 1, 1] + row]
        begin, end = masked_offsets[slot], masked_offsets[slot + 1]
        source = table[batch, first, 1] + _span(i32, table, batch, first, row)[0]
        for j in range(end - begin):
            position = u16[source + j]
            if position >= n:
                return rows[i]
            positions[begin + j] = position
        source = table[batch, first + 2, 1] + _span(i32, table, batch, first + 2, row)[0]
        for j in range(end - begin):
            token = np.int64(tokens[source + j])
            highest = max(highest, token)
            replacement_ids[begin + j] = token
        source = table[batch, first + 1, 1] + _span(i32, table, batch, first + 1, row)[0]
        left = end - begin
        for j in range(step_offsets[slot + 1] - step_offsets[slot]):
            step_lengths[step_offsets[slot] + j] = u8[source + j]
            left -= u8[source + j]
        if left != 0 or segment_starts[slot] > n or highest >= vocab_size:
            return rows[i]
    return -1
