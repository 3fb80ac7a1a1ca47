import contextlib
import dataclasses
import hashlib
import io
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles.made_blocks import SIZES, VIEWS, build, made_of, part, save, views_of, writer

from pmlm_core.corpus.blocks import BATCH_ROWS, BlockSet, Manifest, ShardEntry
from pmlm_core.corpus.shard_opening import _places
from pmlm_core.errors import DataError


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 2_500), max_size=5))
@example([BATCH_ROWS - 1])
@example([BATCH_ROWS, 2 * BATCH_ROWS])
def test_bytes_do_not_depend_on_how_rows_were_fed(cuts: list[int]) -> None:
    windows, views = made_of(2_500, seed=0)
    whole, parts = io.BytesIO(), io.BytesIO()
    with writer(whole) as out:
        out.write(windows, views)
    with writer(parts) as out_parts:
        edges = sorted({0, *cuts, 2_500})
        for begin, end in pairwise(edges):
            few = part(windows, begin, end)
            out_parts.write(few, views_of(few, stream_key=0, first_row=begin))
    assert whole.getvalue() == parts.getvalue()
    assert out.entry("a") == out_parts.entry("a")
    assert out.entry("a").bytes == len(whole.getvalue())


def test_a_shard_is_a_plain_arrow_file_anybody_can_read(tmp_path: Path) -> None:
    shards = build(tmp_path)
    with pa.memory_map(str(tmp_path / "0.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    table.validate(full=True)
    assert table.schema.field("input_ids").type.value_type == pa.uint16()
    assert table["input_ids"][17].as_py() == shards[0][0].row(17).tolist()
    assert [chunk.num_chunks for chunk in table.columns] == [-(-SIZES[0] // BATCH_ROWS)] * table.num_columns


def test_a_shard_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    windows, views = made_of(10, seed=0)
    with writer(str(tmp_path / "a.arrow"), tokenizer="other") as out:
        out.write(windows, views)
    save(str(tmp_path), [out.entry("a.arrow")])
    with pytest.raises(DataError, match="tokenizer_fingerprint is other, not tok"):
        BlockSet.open(str(tmp_path)).rows([0], 0)


def test_an_unfinished_shard_is_refused(tmp_path: Path) -> None:
    windows, views = made_of(10, seed=0)
    out = writer(str(tmp_path / "a.arrow"))
    with contextlib.suppress(KeyboardInterrupt), out:
        out.write(windows, views)
        raise KeyboardInterrupt
    size = (tmp_path / "a.arrow").stat().st_size
    save(str(tmp_path), [ShardEntry("a.arrow", 10, 0, 0, size, "0" * 64)])
    with pytest.raises(DataError, match="not a whole Arrow file"):
        BlockSet.open(str(tmp_path)).rows([0], 0)


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    os.truncate(tmp_path / "0.arrow", 10_000)
    with pytest.raises(DataError, match=r"0\.arrow has 10000 bytes"):
        BlockSet.open(str(tmp_path)).rows([0], 0)


def test_wrong_number_of_rows_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    manifest = Manifest.load(str(tmp_path))
    entries = [dataclasses.replace(entry, rows=entry.rows + 1) for entry in manifest.splits["train"]]
    save(str(tmp_path), entries)
    with pytest.raises(DataError, match="holds 2500 rows, the manifest says 2501"):
        BlockSet.open(str(tmp_path)).rows([0], 0)


def test_damaged_bytes_give_an_error_or_other_tokens_but_never_a_crash(tmp_path: Path) -> None:
    build(tmp_path)
    good = (tmp_path / "2.arrow").read_bytes()
    rng = np.random.default_rng(0)
    complaints = []
    for _ in range(150):
        bad = bytearray(good)
        at = int(rng.integers(8, len(bad) - 64))
        bad[at : at + 32] = rng.bytes(32)
        (tmp_path / "2.arrow").write_bytes(bad)
        opened = BlockSet.open(str(tmp_path))
        try:
            for view in range(VIEWS):
                rows = opened.rows(np.arange(2_501, 2_801), view)
                assert max(rows.input_ids.max(), rows.replacement_ids.max()) < 500
        except DataError as error:
            complaints.append(str(error))
        assert opened.damaged() == [str(tmp_path / "2.arrow")]
    assert len(complaints) > 20
    assert all("2.arrow" in complaint for complaint in complaints)


def test_buffers_outside_the_file_are_refused(tmp_path: Path) -> None:
    build(tmp_path)
    with pa.memory_map(str(tmp_path / "2.arrow")) as source:
        mapped = source.read_buffer()
    batches = [pa.ipc.open_file(pa.BufferReader(mapped)).get_batch(0)]
    assert _places("2.arrow", batches, mapped)[0, 0, 2] > 0
    for other in (mapped.slice(0, 600), mapped.slice(mapped.size // 2), pa.allocate_buffer(mapped.size)):
        with pytest.raises(DataError, match=r"2\.arrow, record batch 0: the shard is damaged"):
            _places("2.arrow", batches, other)


@pytest.mark.parametrize(
    ("column", "what", "value"),
    [
        ("input_ids", "value", 500),  # the first id beyond the vocabulary
        ("segment_start", "value", 24),  # beyond the window
        ("positions_0", "value", 24),
        ("replacements_0", "value", 500),
        ("step_lengths_0", "value", 0),  # the steps no longer add up
        ("positions_0", "offset", 0),  # the row's masked positions and its replacements differ in number
        ("input_ids", "offset", 1 << 30),
        ("step_lengths_0", "offset", -1),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, column: str, what: str, value: int) -> None:
    build(tmp_path)
    opened = BlockSet.open(str(tmp_path))
    opened.rows([2_501], 0)
    shard = opened._open[2]
    with pa.memory_map(str(tmp_path / "2.arrow")) as source:
        schema = pa.ipc.open_file(source).schema
    kind = schema.field(column).type
    offsets, values, _ = shard.table[0, schema.get_field_index(column)]
    if what == "offset":
        at, width = 4 * (offsets + 1), 4  # the end of row 0
    else:
        width = (kind.value_type if pa.types.is_list(kind) else kind).bit_width // 8
        at = width * values  # the first value of row 0
    with open(tmp_path / "2.arrow", "r+b") as file:
        file.seek(at)
        file.write(value.to_bytes(width, "little", signed=value < 0))
    with pytest.raises(DataError, match=r"2\.arrow, row 0: the shard is damaged"):
        BlockSet.open(str(tmp_path)).rows([2_501], 0)
    BlockSet.open(str(tmp_path)).rows([2_503], 0)  # the rest can still be read


def test_writer_refuses_ids_outside_the_vocabulary_and_missing_views() -> None:
    windows, views = made_of(10, seed=0)
    with pytest.raises(DataError, match="outside the vocabulary of 100"):
        writer(io.BytesIO(), vocab_size=100).write(windows, views)
    with pytest.raises(DataError, match="every window needs every view"):
        writer(io.BytesIO()).write(windows, views[:1])
    with pytest.raises(DataError, match="every window needs every view"):
        writer(io.BytesIO()).write(part(windows, 0, 9), views)


def test_an_empty_shard_is_whole(tmp_path: Path) -> None:
    with writer(str(tmp_path / "a.arrow")) as out:
        pass
    save(str(tmp_path), [out.entry("a.arrow")])
    opened = BlockSet.open(str(tmp_path))
    assert opened.damaged() == []
    assert len(opened.rows([], 0)) == 0


def test_parts_cover_the_record_batches_and_tell_their_digests(tmp_path: Path) -> None:
    build(tmp_path)
    for number, entry in enumerate(Manifest.load(str(tmp_path)).splits["train"]):
        data = (tmp_path / f"{number}.arrow").read_bytes()
        assert len(entry.part_bytes) == len(entry.part_sha256) == -(-entry.rows // BATCH_ROWS)
        ends = np.cumsum([0, *entry.part_bytes]).tolist()
        assert [hashlib.sha256(data[begin:end]).hexdigest() for begin, end in pairwise(ends)] == entry.part_sha256
        whole = pa.ipc.open_file(data)
        for batch, (begin, end) in enumerate(pairwise(ends)):
            if batch:  # the first begins with the file's mark and the schema
                message = pa.ipc.read_message(data[begin:end])
                assert pa.ipc.read_record_batch(message, whole.schema).equals(whole.get_batch(batch))
        assert ends[-1] < len(data)  # the footer
