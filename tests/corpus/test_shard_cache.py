"""Shards from a real S3 server: fetched once a machine, bounded, and each failure told apart from the others."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from oracles.made_blocks import Made, build, check

from pmlm_core import storage
from pmlm_core.corpus import shard_cache
from pmlm_core.corpus.blocks import BlockSet
from pmlm_core.corpus.manifest import ShardEntry
from pmlm_core.errors import ConfigError, DataError


class Store:
    """A bucket on a server that can go away and come back."""

    def __init__(self) -> None:
        self.port = 0
        self.start()
        query = f"?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        storage.resolve(f"s3://cached{query}&allow_bucket_creation=true")[0].create_dir("cached")
        self.folder = f"s3://cached/set{query}"

    def start(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

    def stop(self) -> None:
        self.server.stop()


@pytest.fixture
def store(tmp_path, monkeypatch) -> Iterator[Store]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PMLM_CACHE_GB", raising=False)
    made = Store()
    yield made
    made.stop()


@pytest.fixture
def shards(store, tmp_path) -> list[Made]:
    """Three shards in the store."""
    (tmp_path / "made").mkdir()
    made = build(tmp_path / "made")
    for name in ("manifest.json", "0.arrow", "1.arrow", "2.arrow"):
        storage.write_bytes(storage.join(store.folder, name), (tmp_path / "made" / name).read_bytes())
    return made


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache" / "blocks").iterdir()}


def in_cache(entries: list[ShardEntry]) -> set[str]:
    return {f"{entry.sha256}.arrow" for entry in entries}


def test_a_store_that_comes_back_is_waited_for(store, shards, monkeypatch):
    opened = BlockSet.open(store.folder)
    store.stop()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        store.start()

    monkeypatch.setattr(storage, "time", SimpleNamespace(sleep=wait))
    check(opened.rows([0, 2_600], 0), shards, [0, 2_600], [0, 0])
    assert waits == [1.0]


def test_a_store_that_stays_away_is_no_fault_of_the_data(store, shards, tmp_path, monkeypatch):
    opened = BlockSet.open(store.folder)
    store.stop()
    monkeypatch.setattr(storage, "_RETRY_SECONDS", ())
    with pytest.raises(OSError, match=r"0\.arrow.* cannot be fetched: .*AWS Error"):
        opened.rows([0], 0)
    with pytest.raises(OSError, match=r"manifest\.json.* cannot be read: .*AWS Error"):
        storage.read_bytes(storage.join(store.folder, "manifest.json"))
    assert cached(tmp_path) == set()
    store.start()
    check(opened.rows([0], 0), shards, [0], [0])


def test_a_shard_that_is_not_there_is_not_waited_for(store, shards, monkeypatch):
    opened = BlockSet.open(store.folder)
    monkeypatch.setattr(storage, "time", SimpleNamespace(sleep=lambda _: pytest.fail("waited")))
    file_system, path = storage.resolve(storage.join(store.folder, "1.arrow"))
    file_system.delete_file(path)
    with pytest.raises(DataError, match=r"1\.arrow.*missing"):
        opened.rows([2_500], 0)


def _fetch(uri: str, entry: ShardEntry) -> str:
    return shard_cache.fetch(uri, entry)


def _slowly(monkeypatch: pytest.MonkeyPatch, fetched: list[str]) -> None:
    download = shard_cache._download

    def slow(uri: str, entry: ShardEntry, part: object) -> None:
        fetched.append(uri)
        time.sleep(0.3)
        download(uri, entry, part)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_cache, "_download", slow)


def test_several_who_want_one_shard_fetch_it_once(store, shards, tmp_path, monkeypatch):
    entry = BlockSet.open(store.folder).manifest.splits["train"][0]
    uri = storage.join(store.folder, entry.path)
    fetched: list[str] = []
    _slowly(monkeypatch, fetched)
    with ThreadPoolExecutor(4) as pool, get_context("spawn").Pool(1) as other:
        other.apply(os.getpid)  # it is up
        mine = [pool.submit(_fetch, uri, entry) for _ in range(4)]
        time.sleep(0.1)  # one of them holds the lock, so the other process waits for it
        its = other.apply_async(_fetch, (uri, entry))
        assert {future.result() for future in mine} == {its.get(30)}
    assert len(fetched) == 1
    assert cached(tmp_path) == in_cache([entry])


def test_another_process_waits_for_the_one_that_fetches(store, shards, tmp_path, monkeypatch):
    """What the other process would fetch is gone by then: it can only have taken what it waited for."""
    entry = BlockSet.open(store.folder).manifest.splits["train"][0]
    uri = storage.join(store.folder, entry.path)
    download = shard_cache._download
    with get_context("spawn").Pool(1) as other:
        other.apply(_fetch, (storage.join(store.folder, "1.arrow"), BlockSet.open(store.folder)._entries[1]))
        asked = []

        def while_the_other_asks(uri: str, entry: ShardEntry, part: object) -> None:
            download(uri, entry, part)  # type: ignore[arg-type]
            file_system, path = storage.resolve(uri)
            file_system.delete_file(path)
            asked.append(other.apply_async(_fetch, (uri, entry)))
            time.sleep(0.5)

        monkeypatch.setattr(shard_cache, "_download", while_the_other_asks)
        mine = shard_cache.fetch(uri, entry)
        assert asked[0].get(30) == mine


def test_what_a_killed_process_left_is_no_obstacle(store, shards, tmp_path):
    entry = BlockSet.open(store.folder).manifest.splits["train"][0]
    (tmp_path / "cache" / "blocks").mkdir(parents=True)
    (tmp_path / "cache" / "blocks" / f"{entry.sha256}.part").write_bytes(b"x" * (entry.bytes + 10))
    check(BlockSet.open(store.folder).rows([0], 0), shards, [0], [0])
    assert cached(tmp_path) == in_cache([entry])


def test_the_shards_used_least_recently_make_room(store, shards, tmp_path, monkeypatch):
    first, second, third = BlockSet.open(store.folder).manifest.splits["train"]
    monkeypatch.setenv("PMLM_CACHE_GB", f"{(first.bytes + third.bytes) / 1e9:.9f}")
    assert second.bytes < third.bytes < first.bytes
    opened = BlockSet.open(store.folder)
    opened.rows([2_500], 0)
    opened.rows([0], 0)
    assert cached(tmp_path) == in_cache([first, second])
    left = tmp_path / "cache" / "blocks" / "killed.part"
    left.write_bytes(b"x")
    os.utime(left, (1, 1))
    opened.rows([2_500], 0)  # mapped already, and used all the same
    check(opened.rows([2_501], 0), shards, [2_501], [0])
    assert cached(tmp_path) == in_cache([second, third])
    assert {Path(shard.where).name for shard in opened._open.values()} == in_cache([second, third])
    everything = np.random.default_rng(0).permutation(len(opened))
    check(opened.rows(everything, 1), shards, everything.tolist(), [1] * len(everything))


def test_no_limit_no_eviction(store, shards, tmp_path):
    opened = BlockSet.open(store.folder)
    opened.rows([0, 2_500, 2_501], 0)
    assert cached(tmp_path) == in_cache(opened._entries)


@pytest.mark.parametrize("text", ["much", "-1", "0", "nan", "inf"])
def test_a_limit_that_is_none(store, shards, monkeypatch, text):
    monkeypatch.setenv("PMLM_CACHE_GB", text)
    with pytest.raises(ConfigError, match=f"PMLM_CACHE_GB is '{text}'"):
        BlockSet.open(store.folder)


def test_a_limit_below_one_shard(store, shards, monkeypatch):
    monkeypatch.setenv("PMLM_CACHE_GB", "0.000001")
    with pytest.raises(ConfigError, match=r"0\.arrow.*PMLM_CACHE_GB=0\.000001 allows"):
        BlockSet.open(store.folder).rows([0], 0)


def test_a_disk_without_room_is_told_before_anything_is_fetched(store, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(shard_cache, "_download", lambda *_: pytest.fail("fetched"))
    with pytest.raises(DataError, match=r"0\.arrow.* GB, and the disk of .*1e-06 GB free.*PMLM_CACHE to a folder"):
        BlockSet.open(store.folder).rows([0], 0)
    assert cached(tmp_path) == set()


def test_a_cache_folder_that_cannot_be_made(store, shards, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"0\.arrow.*cannot be fetched into .*set PMLM_CACHE"):
        BlockSet.open(store.folder).rows([0], 0)
