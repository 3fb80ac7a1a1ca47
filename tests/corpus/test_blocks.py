import contextlib
import dataclasses
import io
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlm_core import storage
from pmlm_core.corpus.blocks import BATCH_ROWS, BlockSet, Manifest, Rows, ShardEntry, ShardWriter
from pmlm_core.corpus.masking import MaskedView, mask_windows
from pmlm_core.corpus.packing import Packer, Windows
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import DataError

IDS = SpecialIds()
VIEWS = 2
SIZES = (2_500, 1, 300)  # rows of the three shards: more than one record batch, a single row, less than a batch


def made_of(rows: int, seed: int, vocab_size: int = 500) -> tuple[Windows, list[MaskedView]]:
    rng = np.random.default_rng(seed)
    packer = Packer(24, IDS, False, stream_key=seed)
    for length in rng.integers(1, 22, rows):
        packer.add(rng.integers(6, vocab_size, length))
    return (windows := packer.flush()), views_of(windows, seed)


def views_of(windows: Windows, stream_key: int, first_row: int = 0) -> list[MaskedView]:
    return [
        mask_windows(
            windows, view=v, stream_key=stream_key, first_row=first_row, special_ids=IDS, ordinary_ids=np.arange(6, 500)
        )
        for v in range(VIEWS)
    ]


def part(windows: Windows, begin: int, end: int) -> Windows:
    offsets = windows.offsets[begin : end + 1]
    ids = windows.input_ids[offsets[0] : offsets[-1]]
    return Windows(ids, offsets - offsets[0], windows.segment_starts[begin:end])


def writer(target: str | io.BytesIO, vocab_size: int = 500, tokenizer: str = "tok") -> ShardWriter:
    return ShardWriter(target, views=VIEWS, vocab_size=vocab_size, max_length=24, tokenizer_fingerprint=tokenizer)


def save(folder: str, entries: list[ShardEntry], vocab_size: int = 500) -> Manifest:
    manifest = Manifest(
        tokenizer_fingerprint="tok",
        vocab_size=vocab_size,
        special_ids=IDS,
        max_length=24,
        views=VIEWS,
        splits={"train": entries, "validation": []},
        counts={"documents": 3},
    )
    manifest.save(folder)
    return manifest


def build(folder: Path, vocab_size: int = 500) -> list[tuple[Windows, list[MaskedView]]]:
    shards, entries = [], []
    for i, rows in enumerate(SIZES):
        windows, views = made_of(rows, seed=i, vocab_size=vocab_size)
        with writer(str(folder / f"{i}.arrow"), vocab_size) as out:
            out.write(windows, views)
        entries.append(out.entry(f"{i}.arrow"))
        shards.append((windows, views))
    save(str(folder), entries, vocab_size)
    return shards


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[tuple[Windows, list[MaskedView]]]]:
    folder = tmp_path_factory.mktemp("blocks")
    return str(folder), build(folder)


def check(rows: Rows, shards: list[tuple[Windows, list[MaskedView]]], wanted: list[int], views: list[int]) -> None:
    for b, (index, v) in enumerate(zip(wanted, views, strict=True)):
        shard = 0
        while index >= len(shards[shard][0]):
            index -= len(shards[shard][0])
            shard += 1
        windows, view = shards[shard][0], shards[shard][1][v]
        masked = slice(view.offsets[index], view.offsets[index + 1])
        steps = slice(view.step_offsets[index], view.step_offsets[index + 1])
        got = slice(rows.masked_offsets[b], rows.masked_offsets[b + 1])
        assert rows.input_ids[rows.offsets[b] : rows.offsets[b + 1]].tolist() == windows.row(index).tolist()
        assert rows.segment_starts[b] == windows.segment_starts[index]
        assert rows.positions[got].tolist() == view.positions[masked].tolist()
        assert rows.replacement_ids[got].tolist() == view.replacement_ids[masked].tolist()
        assert (
            rows.step_lengths[rows.step_offsets[b] : rows.step_offsets[b + 1]].tolist()
            == view.step_lengths[steps].tolist()
        )


@settings(deadline=None, max_examples=50)
@given(wanted=st.lists(st.tuples(st.integers(0, sum(SIZES) - 1), st.integers(0, VIEWS - 1)), max_size=40))
def test_rows_come_back_as_written(
    blocks: tuple[str, list[tuple[Windows, list[MaskedView]]]], wanted: list[tuple[int, int]]
) -> None:
    folder, shards = blocks
    indices, views = [index for index, _ in wanted], [view for _, view in wanted]
    rows = BlockSet.open(folder).rows(np.array(indices, np.int64), np.array(views, np.int64))
    assert len(rows) == len(wanted)
    check(rows, shards, indices, views)


def test_every_row_of_every_shard_with_one_shard_open_at_a_time(
    blocks: tuple[str, list[tuple[Windows, list[MaskedView]]]],
) -> None:
    folder, shards = blocks
    opened = BlockSet(folder, Manifest.load(folder), "train", max_open=1)
    indices = np.random.default_rng(0).permutation(len(opened))
    check(opened.rows(indices, 1), shards, indices.tolist(), [1] * len(indices))
    assert len(opened._open) == 1


def test_ids_above_65535_take_32_bits(tmp_path: Path) -> None:
    shards = build(tmp_path, vocab_size=100_000)
    assert shards[0][0].input_ids.max() > 65_535
    check(BlockSet.open(str(tmp_path)).rows([7, 2_500, 2_600], 0), shards, [7, 2_500, 2_600], [0, 0, 0])


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 2_500), max_size=5))
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


def test_a_shard_is_a_plain_arrow_file_anybody_can_read(
    blocks: tuple[str, list[tuple[Windows, list[MaskedView]]]],
) -> None:
    folder, shards = blocks
    with pa.memory_map(f"{folder}/0.arrow") as source:
        table = pa.ipc.open_file(source).read_all()
    table.validate(full=True)
    assert table.schema.field("input_ids").type.value_type == pa.uint16()
    assert table["input_ids"][17].as_py() == shards[0][0].row(17).tolist()
    assert [chunk.num_chunks for chunk in table.columns] == [-(-SIZES[0] // BATCH_ROWS)] * table.num_columns


def test_opening_reads_the_manifest_alone(blocks: tuple[str, object], tmp_path: Path) -> None:
    manifest = Manifest.load(blocks[0])
    manifest.save(str(tmp_path))  # no shard beside it
    opened = BlockSet.open(str(tmp_path))
    assert len(opened) == sum(SIZES)
    with pytest.raises(DataError, match=r"0\.arrow.*missing"):
        opened.rows([0], 0)


def test_shards_keep_no_file_open(blocks: tuple[str, object]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    opened = BlockSet.open(blocks[0])
    opened.rows([0, 2_500, 2_501], 0)
    assert len(opened._open) == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pickled_set_and_many_threads_read_the_same(blocks: tuple[str, object]) -> None:
    opened = BlockSet.open(blocks[0])
    copy = pickle.loads(pickle.dumps(opened))
    indices = np.arange(len(opened))
    expected = opened.rows(indices, 0).input_ids
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: copy.rows(indices, 0), range(16)):
            assert np.array_equal(rows.input_ids, expected)


@pytest.mark.parametrize(
    ("indices", "views", "named"), [([2_801], 0, "2801"), ([-1], 0, "-1"), ([0], 2, "View 2"), ([0], -1, "View")]
)
def test_rows_and_views_that_do_not_exist(
    blocks: tuple[str, object], indices: list[int], views: int, named: str
) -> None:
    with pytest.raises(DataError, match=named):
        BlockSet.open(blocks[0]).rows(indices, views)


def test_no_finished_blocks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json.*pmlm preprocess"):
        BlockSet.open(str(tmp_path))


def test_no_such_split(blocks: tuple[str, object]) -> None:
    with pytest.raises(DataError, match=r"no split 'test'.*train.*validation"):
        BlockSet.open(blocks[0], "test")
    assert len(BlockSet.open(blocks[0], "validation")) == 0


def test_another_tokenizer_is_refused(blocks: tuple[str, object]) -> None:
    opened = BlockSet.open(blocks[0])
    opened.require_tokenizer("tok")
    with pytest.raises(DataError, match="tokenizer"):
        opened.require_tokenizer("other")


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
    save(str(tmp_path), [ShardEntry("a.arrow", 10, 0, 0, size, "")])
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
        with pytest.raises(DataError, match=r"2\.arrow has digest"):
            opened.verify()
    assert len(complaints) > 20
    assert all("2.arrow" in complaint for complaint in complaints)


def test_an_intact_set_verifies(blocks: tuple[str, object]) -> None:
    BlockSet.open(blocks[0]).verify()


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
    opened.verify()
    assert len(opened.rows([], 0)) == 0


def test_manifest_survives_json_and_its_fingerprint_follows_the_content(blocks: tuple[str, object]) -> None:
    manifest = Manifest.load(blocks[0])
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.rows("train") == sum(SIZES)
    entries = manifest.splits["train"]
    other = dataclasses.replace(manifest, splits={"train": entries[::-1], "validation": []}, fingerprint="")
    assert other.fingerprint != manifest.fingerprint
    assert dataclasses.replace(manifest, code_version="x", fingerprint="").fingerprint == manifest.fingerprint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not valid JSON"),
        ("[]", "format version None"),
        ('{"format_version": 99}', "version 99"),
        ('{"format_version": 1}', "lacks a field"),
    ],
)
def test_manifests_that_cannot_be_used(text: str, named: str) -> None:
    with pytest.raises(DataError, match=named):
        Manifest.from_json(text)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    host, port = server.get_host_and_port()
    query = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    storage.resolve(f"s3://blocks{query}&allow_bucket_creation=true")[0].create_dir("blocks")
    yield f"s3://blocks/set{query}"
    server.stop()


def test_blocks_on_an_object_store(
    blocks: tuple[str, list[tuple[Windows, list[MaskedView]]]],
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, shards = blocks
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path))
    for name in ("manifest.json", "0.arrow", "1.arrow"):
        storage.write_bytes(storage.join(bucket, name), Path(folder, name).read_bytes())
    storage.write_bytes(storage.join(bucket, "2.arrow"), b"not what the manifest says")
    opened = BlockSet.open(bucket)
    check(opened.rows([3, 2_500], [0, 1]), shards, [3, 2_500], [0, 1])
    assert len(list((tmp_path / "blocks").iterdir())) == 2
    with pytest.raises(DataError, match="digest differs"):
        opened.rows([2_501], 0)
    assert len(list((tmp_path / "blocks").iterdir())) == 2  # nothing half-fetched stays
