"""Shards from a real S3 server behind a faulty proxy: fetched once a machine by record batches, checked, bounded."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from oracles.made_blocks import Made, build, check

from pmlm_core import storage
from pmlm_core.corpus import cache_room, shard_cache
from pmlm_core.corpus.blocks import BATCH_ROWS, BlockSet, Manifest
from pmlm_core.corpus.shard_cache import batch_of
from pmlm_core.errors import ConfigError, DataError
from tests.faulty_store import FaultyStore, faulty_store

FOLDER = "s3://cached/set"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyStore]:
    with faulty_store("cached") as store:
        yield store


@pytest.fixture
def store(server, tmp_path, monkeypatch) -> FaultyStore:
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PMLM_CACHE_GB", raising=False)
    server.faults.clear()
    server.stalled.clear()
    return server


@pytest.fixture
def shards(store, tmp_path) -> list[Made]:
    """Three shards in the store, of 2,500, 1 and 300 rows."""
    (tmp_path / "made").mkdir()
    made = build(tmp_path / "made")
    for name in ("manifest.json", "0.arrow", "1.arrow", "2.arrow"):
        storage.copy_file(tmp_path / "made" / name, storage.join(FOLDER, name))
    store.requests.clear()
    return made


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache" / "blocks").iterdir()} - {"used"}


def batches(opened: BlockSet) -> list[str]:
    """Names in the cache of all record batches, in order."""
    return [f"{digest}.batch" for entry in opened.manifest.splits["train"] for digest in entry.part_sha256]


def overwrite(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_row_costs_its_record_batch_and_no_more(store, shards, tmp_path):
    opened = BlockSet.open(FOLDER)
    check(opened.rows([3, 2_499, 5], [0, 1, 1]), shards, [3, 2_499, 5], [0, 1, 1])
    sizes = opened.manifest.splits["train"][0].part_bytes
    assert sum(request.sent for request in store.got("0.arrow")) == sizes[0] + sizes[2]
    assert cached(tmp_path) == {batches(opened)[0], batches(opened)[2]}
    everything = np.random.default_rng(0).permutation(len(opened))
    check(opened.rows(everything, 1), shards, everything.tolist(), [1] * len(everything))
    assert cached(tmp_path) == set(batches(opened))
    assert opened.damaged() == []
    BlockSet.open(FOLDER).rows(everything, 0)
    assert len(store.got(".arrow")) == 5


def test_blocks_of_before_the_parts_are_fetched_whole(store, shards, tmp_path):
    manifest = Manifest.load(FOLDER)
    old = [replace(entry, part_bytes=[], part_sha256=[]) for entry in manifest.splits["train"]]
    mixed = replace(manifest, splits={"train": [old[0], *manifest.splits["train"][1:]]})
    opened = BlockSet(FOLDER, mixed, "train")
    check(opened.rows([3, 2_400, 2_500], 0), shards, [3, 2_400, 2_500], [0] * 3)
    assert cached(tmp_path) == {f"{old[0].sha256}.arrow", batches(opened)[0 + len(mixed.splits["train"][0].part_bytes)]}
    assert opened.manifest.fingerprint == manifest.fingerprint


def test_what_is_asked_for_ahead_is_there_when_it_is_wanted(store, shards):
    opened = BlockSet.open(FOLDER)
    store.late = 2.0
    store.fail("late", 5, "GET", ".arrow")
    begun = time.monotonic()
    opened.fetch_ahead(np.arange(len(opened)))
    assert time.monotonic() - begun < store.late  # no answer was waited for
    everything = list(range(len(opened)))
    check(opened.rows(everything, 0), shards, everything, [0] * len(everything))
    assert time.monotonic() - begun < 4 * store.late  # five requests beside each other
    assert len(store.got(".arrow")) == 5


def test_local_sets_ask_nothing_ahead(tmp_path):
    build(tmp_path)
    opened = BlockSet.open(str(tmp_path))
    opened.fetch_ahead([0, 2_600])
    assert opened.steps_ahead(8) == 0


def test_steps_ahead_take_half_the_bound(store, shards, monkeypatch):
    opened = BlockSet.open(FOLDER)
    assert opened.steps_ahead(256) == 8
    mean = sum(nbytes for entry in opened.manifest.splits["train"] for nbytes in entry.part_bytes) / 5
    monkeypatch.setenv("PMLM_CACHE_GB", f"{2 * 3.5 * 4 * mean / 1e9:.9f}")
    assert opened.steps_ahead(4) == 3
    assert opened.steps_ahead(10_000) == 1


def test_a_store_that_comes_back_is_waited_for(store, shards):
    opened = BlockSet.open(FOLDER)
    for kind in ("slow_down", "drop", "too_many", "cut"):
        store.fail(kind, method="GET", name="0.arrow")
    check(opened.rows([0, 2_600], 0), shards, [0, 2_600], [0, 0])
    assert not store.faults


def test_a_store_that_stays_away_is_no_fault_of_the_data(store, shards, tmp_path, monkeypatch):
    opened = BlockSet.open(FOLDER)
    monkeypatch.setenv("PMLM_STORE_SECONDS", "0.5")
    store.fail("slow_down", 100)
    with pytest.raises(OSError, match=r"0\.arrow cannot be read: .*AWS Error.*tried .* PMLM_STORE_SECONDS"):
        opened.rows([0], 0)
    with pytest.raises(OSError, match=r"manifest\.json cannot be read: .*AWS Error"):
        storage.read_bytes(storage.join(FOLDER, "manifest.json"))
    assert cached(tmp_path) == set()
    opened.fetch_ahead([0])
    _wait_until_nothing_is_fetched()
    store.faults.clear()
    check(opened.rows([0], 0), shards, [0], [0])  # what was asked for ahead failed while nobody waited for it


def test_a_shard_that_is_not_there_is_not_waited_for(store, shards):
    opened = BlockSet.open(FOLDER)
    opened.rows([1], 0)
    for name, row in (("1.arrow", 2_500), ("0.arrow", 2_000)):  # 0.arrow was open already
        storage.remove_file(storage.join(FOLDER, name))
        begun = time.monotonic()
        with pytest.raises(DataError, match=rf"{name}.*missing"):
            opened.rows([row], 0)
        assert time.monotonic() - begun < 3


def test_bytes_spoilt_on_their_way_are_asked_for_again(store, shards):
    store.fail("corrupt", method="GET", name="2.arrow")
    check(BlockSet.open(FOLDER).rows([2_501], 0), shards, [2_501], [0])
    assert len(store.got("2.arrow")) == 2


def test_a_part_that_is_corrupt_in_the_store_is_refused_by_name(store, shards, tmp_path):
    entry = Manifest.load(FOLDER).splits["train"][0]
    overwrite(tmp_path / "made" / "0.arrow", entry.part_bytes[0] + 1_000, b"rotten")
    storage.copy_file(tmp_path / "made" / "0.arrow", storage.join(FOLDER, "0.arrow"))
    opened = BlockSet.open(FOLDER)
    check(opened.rows([3, 2_400], 0), shards, [3, 2_400], [0, 0])  # the other parts are as they were
    before = cached(tmp_path)
    with pytest.raises(DataError, match=r"set/0\.arrow, record batch 1, .*digest differs.*pmlm preprocess"):
        opened.rows([BATCH_ROWS], 0)
    assert cached(tmp_path) == before  # nothing half-fetched stays


def test_a_part_that_is_corrupt_in_the_cache_is_fetched_again(store, shards, tmp_path):
    opened = BlockSet.open(FOLDER)
    opened.rows([0, 2_500], 0)
    spoilt, cut = (tmp_path / "cache" / "blocks" / batches(opened)[number] for number in (0, 3))
    overwrite(spoilt, 1_000, b"rotten")
    cut.write_bytes(b"")
    check(BlockSet.open(FOLDER).rows([0, 2_500], 0), shards, [0, 2_500], [0, 0])
    assert {shard_cache.digest_of(path) + ".batch" for path in (spoilt, cut)} == {spoilt.name, cut.name}


def _fetch(number: int) -> str:
    entry = Manifest.load(FOLDER).splits["train"][number]
    return shard_cache.fetch(batch_of(storage.join(FOLDER, entry.path), entry, 0))


def test_threads_and_processes_fetch_a_part_once(store, shards, tmp_path):
    store.late = 1.0
    with ThreadPoolExecutor(3) as pool, get_context("spawn").Pool(1) as other:
        other.apply(_fetch, (1,))  # it is up
        store.fail("late", method="GET", name="0.arrow")
        first = pool.submit(_fetch, 0)
        assert store.stalled.wait(10)
        others = [other.apply_async(_fetch, (0,)), *(pool.submit(_fetch, 0) for _ in range(2))]
        found = {first.result(), others[0].get(30), *(future.result() for future in others[1:])}
    assert len(found) == 1
    assert len(store.got("0.arrow")) == 1


def test_what_a_killed_process_left_is_no_obstacle(store, shards, tmp_path):
    store.fail("stall", method="GET", name="0.arrow")
    program = f"from pmlm_core.corpus.blocks import BlockSet; BlockSet.open({FOLDER!r}).rows([0], 0)"
    killed = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert store.stalled.wait(60)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert {name.rpartition(".")[2] for name in cached(tmp_path)} == {"part"}
    opened = BlockSet.open(FOLDER)
    check(opened.rows([0], 0), shards, [0], [0])
    assert cached(tmp_path) == {batches(opened)[0]}


def test_a_cache_that_vanishes_during_a_fetch_is_made_again(store, shards, tmp_path):
    opened = BlockSet.open(FOLDER)
    store.late = 1.0
    store.fail("late", method="GET", name="0.arrow")
    with ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(opened.rows, [0], 0)
        assert store.stalled.wait(10)
        shutil.rmtree(tmp_path / "cache")
        check(wanted.result(), shards, [0], [0])
    assert cached(tmp_path) == {batches(opened)[0]}


def test_what_was_used_least_recently_makes_room(store, shards, tmp_path, monkeypatch):
    sizes = [nbytes for entry in Manifest.load(FOLDER).splits["train"] for nbytes in entry.part_bytes]
    monkeypatch.setenv("PMLM_CACHE_GB", f"{(sizes[0] + sizes[1] + sizes[3]) / 1e9:.9f}")
    opened = BlockSet.open(FOLDER)
    names = batches(opened)
    opened.rows([0], 0)
    opened.rows([BATCH_ROWS], 0)
    opened.rows([2_500], 0)
    left = tmp_path / "cache" / "blocks" / "killed.part"
    left.write_bytes(b"x")
    os.utime(left, (1, 1))
    opened.rows([0], 0)  # mapped already, and used all the same
    assert cached(tmp_path) == {names[0], names[1], names[3], "killed.part"}
    remove = Path.unlink

    def nobody_can_take_it_meanwhile(path: Path) -> None:
        if path == left:
            with open(path) as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)

    monkeypatch.setattr(Path, "unlink", nobody_can_take_it_meanwhile)
    check(opened.rows([2_499], 0), shards, [2_499], [0])
    assert cached(tmp_path) == {names[0], names[2], names[3]}
    opened.rows([2_499], 0)
    assert {Path(shard.where).name for shard in opened._open.values()} == {names[0], names[2], names[3]}
    assert int((tmp_path / "cache" / "blocks" / "used").read_text()) == sizes[0] + sizes[2] + sizes[3]


def test_under_a_bound_below_the_set_every_row_is_read_all_the_same(store, shards, tmp_path, monkeypatch):
    sizes = [nbytes for entry in Manifest.load(FOLDER).splits["train"] for nbytes in entry.part_bytes]
    bound = max(sizes) + 1000
    monkeypatch.setenv("PMLM_CACHE_GB", f"{bound / 1e9:.9f}")
    opened = BlockSet.open(FOLDER)
    everything = np.random.default_rng(0).permutation(len(opened))
    opened.fetch_ahead(everything)
    check(opened.rows(everything, 1), shards, everything.tolist(), [1] * len(everything))
    blocks = tmp_path / "cache" / "blocks"
    for _ in range(5):  # what several fetched beside each other goes with the next, once the last of them has ended
        (blocks / batches(opened)[3]).unlink(missing_ok=True)
        BlockSet.open(FOLDER).rows([2_500], 0)
        if sum(path.stat().st_size for path in blocks.glob("*.batch")) <= bound:
            return
        time.sleep(0.2)
    raise AssertionError({path.name: path.stat().st_size for path in blocks.glob("*.batch")})


def test_the_count_of_what_is_kept_mends_itself(store, shards, tmp_path, monkeypatch):
    sizes = [nbytes for entry in Manifest.load(FOLDER).splits["train"] for nbytes in entry.part_bytes]
    monkeypatch.setenv("PMLM_CACHE_GB", f"{(sum(sizes) + 10) / 1e9:.9f}")
    opened = BlockSet.open(FOLDER)
    opened.rows([0], 0)
    counted = tmp_path / "cache" / "blocks" / "used"
    for wrong in ("99999999999", ""):  # what was reserved by killed processes; torn by a kill
        counted.write_text(wrong)
        opened.rows([BATCH_ROWS] if wrong else [2_500], 0)
    assert int(counted.read_text()) == sizes[0] + sizes[1] + sizes[3]
    monkeypatch.delenv("PMLM_CACHE_GB")
    opened.rows([2_501], 0)
    assert cached(tmp_path) == {name for number, name in enumerate(batches(opened)) if number != 2}
    assert not counted.exists()


@pytest.mark.parametrize("text", ["much", "-1", "0", "nan", "inf"])
def test_a_limit_that_is_none(store, shards, monkeypatch, text):
    monkeypatch.setenv("PMLM_CACHE_GB", text)
    with pytest.raises(ConfigError, match=f"PMLM_CACHE_GB is '{text}'"):
        BlockSet.open(FOLDER)


def test_a_limit_below_one_part(store, shards, monkeypatch):
    monkeypatch.setenv("PMLM_CACHE_GB", "0.000001")
    with pytest.raises(ConfigError, match=r"0\.arrow.*PMLM_CACHE_GB=0\.000001 allows"):
        BlockSet.open(FOLDER).rows([0], 0)


def test_a_disk_without_room_is_told_before_anything_is_fetched(store, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_room.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"0\.arrow.* GB, and the disk of .*1e-06 GB free.*PMLM_CACHE to a folder"):
        BlockSet.open(FOLDER).rows([0], 0)
    assert cached(tmp_path) == set()
    assert not store.got("0.arrow")


def test_a_cache_folder_that_cannot_be_made(store, shards, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"0\.arrow.*cannot be fetched into .*set PMLM_CACHE"):
        BlockSet.open(FOLDER).rows([0], 0)


def test_no_thread_is_left_when_nothing_is_fetched(store, shards):
    opened = BlockSet.open(FOLDER)
    opened.rows(np.arange(len(opened)), 0)
    _wait_until_nothing_is_fetched()


def _wait_until_nothing_is_fetched() -> None:
    deadline = time.monotonic() + 5
    while any(thread.name == "pmlm-fetch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
