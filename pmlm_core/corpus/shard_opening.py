"""Opening a shard, or one record batch of it: mapped, held against the manifest, and the places of its buffers found.

Arrow parses the footer and says where the buffers of every record batch lie; after that no Arrow object is touched.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmlm_core.corpus.manifest import Manifest, ShardEntry
from pmlm_core.corpus.shard_reader import REMAKE, Shard
from pmlm_core.corpus.shards import BATCH_ROWS, shard_schema
from pmlm_core.errors import DataError

_MARK = 8  # bytes before the first message of an Arrow file


def open_shard(path: str, entry: ShardEntry, manifest: Manifest) -> Shard:
    """Map a local shard and check that it is the one the manifest speaks of (size, schema, rows; not the digest).

    Raises:
        DataError: missing, truncated, damaged, or made with another tokenizer, format or setting.
    """
    mapped = _mapped(path)
    if mapped.size != entry.bytes:
        raise DataError(
            f"{path} has {mapped.size} bytes, the manifest says {entry.bytes}: truncated or changed; {REMAKE}."
        )
    try:
        reader = pa.ipc.open_file(pa.BufferReader(mapped))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Arrow file ({error}); {REMAKE}.") from None
    _check_schema(path, reader.schema, manifest)
    rows = [batch.num_rows for batch in batches]
    if sum(rows) != entry.rows or any(n != BATCH_ROWS for n in rows[:-1]):
        raise DataError(f"{path} holds {sum(rows)} rows, the manifest says {entry.rows}; {REMAKE}.")
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
        raise DataError(f"{path} is no whole record batch ({error}); {REMAKE}.") from None
    if batch.num_rows != min(BATCH_ROWS, entry.rows - number * BATCH_ROWS):
        raise DataError(f"{path} holds {batch.num_rows} rows of {entry.path}, not what the manifest says; {REMAKE}.")
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
                raise DataError(f"{path}, record batch {b}: the shard is damaged; {REMAKE}.")
    return table


def _width(kind: pa.DataType) -> int:
    """Bytes of a value."""
    return (kind.value_type if pa.types.is_list(kind) else kind).bit_width // 8
