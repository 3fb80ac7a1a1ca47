import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.made_blocks import SIZES, VIEWS, Made, build, check

from pmlm_core import storage
from pmlm_core.corpus.blocks import BlockSet, Manifest
from pmlm_core.errors import DataError


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Made]:
    folder = tmp_path_factory.mktemp("blocks")
    return str(folder), build(folder)


@settings(deadline=None, max_examples=50)
@given(wanted=st.lists(st.tuples(st.integers(0, sum(SIZES) - 1), st.integers(0, VIEWS - 1)), max_size=40))
def test_rows_come_back_as_written(blocks: tuple[str, Made], wanted: list[tuple[int, int]]) -> None:
    folder, shards = blocks
    indices, views = [index for index, _ in wanted], [view for _, view in wanted]
    rows = BlockSet.open(folder).rows(np.array(indices, np.int64), np.array(views, np.int64))
    assert len(rows) == len(wanted)
    check(rows, shards, indices, views)


def test_every_row_of_every_shard_with_one_shard_open_at_a_time(
    blocks: tuple[str, Made],
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


def test_nothing_of_an_intact_set_is_damaged(blocks: tuple[str, object]) -> None:
    assert BlockSet.open(blocks[0]).damaged() == []


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
    blocks: tuple[str, Made],
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
