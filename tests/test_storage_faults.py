"""A store that fails, throttles, stalls or cuts: what is read is right, what is written is whole or absent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pmlm_core import storage, stores
from pmlm_core.errors import ConfigError, DataError
from tests.faulty_store import FaultyStore, faulty_store

LARGE = 25 << 20  # three parts of an upload
WHERE = "s3://faulty/a/file"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyStore]:
    with faulty_store("faulty") as store:
        yield store


@pytest.fixture
def store(server, monkeypatch) -> FaultyStore:
    monkeypatch.setenv("PMLM_STORE_SECONDS", "6")
    server.faults.clear()
    server.stalled.clear()
    storage.remove_folder("s3://faulty/a")
    server.requests.clear()
    return server


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "optimizer.safetensors"
    path.write_bytes(os.urandom(LARGE))
    return path


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setenv("PMLM_STORE_SECONDS", "0.5")


def test_every_operation_outlasts_a_store_that_fails_a_while(store):
    for kind in ("slow_down", "drop"):
        store.fail(kind, method="PUT", name="a/file")
    storage.write_bytes(WHERE, b"content")
    store.fail("slow_down", 1, "HEAD")
    assert storage.exists(WHERE)
    store.fail("drop", 1, "HEAD")
    assert storage.size(WHERE) == 7
    store.fail("too_many", 1, "GET", "list-type")
    assert list(storage.names_in("s3://faulty/a")) == ["file"]
    assert list(storage.folders_in("s3://faulty")) == ["a"]
    for kind in ("broken", "cut"):
        store.fail(kind, method="GET", name="a/file")
    assert storage.read_bytes(WHERE) == b"content"
    store.fail("slow_down", 1, "DELETE")
    storage.remove_file(WHERE)
    assert not storage.exists(WHERE)
    assert not store.faults


@pytest.mark.parametrize(
    ("work", "done"),
    [
        (lambda: storage.read_bytes(WHERE), "read"),
        (lambda: storage.write_bytes(WHERE, b"x"), "written"),
        (lambda: storage.exists(WHERE), "looked up"),
        (lambda: list(storage.names_in("s3://faulty/a")), "listed"),
        (lambda: storage.remove_file(WHERE), "removed"),
    ],
)
def test_a_store_that_goes_on_failing_is_an_error_that_says_what_to_do(store, short_patience, work, done):
    store.fail("slow_down", 100)
    begun = time.monotonic()
    with pytest.raises(
        OSError, match=rf"s3://faulty/a.* cannot be {done}: .*AWS Error.*tried \d+ times in .*PMLM_STORE_SECONDS"
    ):
        work()
    assert time.monotonic() - begun < 10


def test_a_refusal_is_told_at_once(store):
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"s3://elsewhere/x cannot be written: .*refuses, see whether the bucket exists"):
        storage.write_bytes("s3://elsewhere/x", b"x")
    assert time.monotonic() - begun < 3


def test_a_missing_file_is_no_failing_store(store, tmp_path):
    with pytest.raises(DataError, match=r"nothing cannot be read"):
        storage.read_bytes("s3://faulty/a/nothing")
    with pytest.raises(FileNotFoundError):
        storage.fetch_file("s3://faulty/a/nothing", tmp_path / "x")


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_patience_that_is_none(monkeypatch, text):
    monkeypatch.setenv("PMLM_STORE_SECONDS", text)
    with pytest.raises(ConfigError, match=f"PMLM_STORE_SECONDS is '{text}'"):
        stores.patience()


def test_a_late_answer_is_waited_for(store):
    storage.write_bytes(WHERE, b"content")
    store.late = 4.0  # longer than the client's own patience
    store.fail("late", method="GET", name="a/file")
    assert storage.read_bytes(WHERE) == b"content"
    assert len(store.got("a/file")) == 1


@pytest.mark.slow
def test_a_connection_that_falls_silent_is_given_up(store):
    storage.write_bytes(WHERE, b"content")
    store.fail("stall", method="GET", name="a/file")
    assert storage.read_bytes(WHERE) == b"content"


def test_a_large_file_goes_and_comes_in_parts(store, large, tmp_path):
    for kind in ("slow_down", "drop"):
        store.fail(kind, method="PUT", name="partNumber=2")
    storage.copy_file(large, WHERE)
    assert {f"partNumber={n}&" for n in (1, 2, 3)} == {
        f"partNumber={n}&" for n in range(9) for r in store.requests if f"partNumber={n}&" in r.path
    }
    for kind in ("too_many", "cut", "broken", "drop"):
        store.fail(kind, method="GET", name="a/file")
    storage.fetch_file(WHERE, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert sum(request.span != "" for request in store.got("a/file")) >= 4
    storage.copy_file(Path(os.devnull), f"{WHERE}-empty")
    assert storage.read_bytes(f"{WHERE}-empty") == b""


@pytest.mark.parametrize(("method", "name"), [("PUT", "partNumber=1"), ("PUT", "partNumber=3"), ("POST", "uploadId=")])
def test_an_upload_that_fails_midway_leaves_what_was_there(store, large, short_patience, method, name):
    storage.write_bytes(WHERE, b"before")
    store.fail("slow_down", 100, method, name)
    with pytest.raises(OSError, match=r"a/file cannot be written"):
        storage.copy_file(large, WHERE)
    store.faults.clear()
    assert storage.read_bytes(WHERE) == b"before"


def _uploading(large: Path, ended_by: signal.Signals, store: FaultyStore) -> int:
    """End a process that uploads while its second part waits for an answer; its exit status."""
    store.fail("late", method="PUT", name="partNumber=2")
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # not so in a shell's background
    program = f"{heeds}; from pmlm_core import storage; storage.copy_file({str(large)!r}, {WHERE!r})"
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    assert store.stalled.wait(60)
    child.send_signal(ended_by)
    return child.wait(60)


def test_a_killed_upload_is_not_to_be_seen(store, large):
    store.late = 2.0
    assert _uploading(large, signal.SIGKILL, store) == -signal.SIGKILL
    time.sleep(store.late)
    assert not storage.exists(WHERE)
    pending = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).list_multipart_uploads(Bucket="faulty")
    assert [upload["Key"] for upload in pending["Uploads"]].count("a/file") >= 1  # parts without an object


def test_an_interrupted_upload_ends_whole(store, large):
    """pyarrow closes a stream whose block was left by an error, which would make an object of the first parts."""
    store.late = 2.0
    assert _uploading(large, signal.SIGINT, store) != 0
    assert storage.size(WHERE) == LARGE


def test_lines_that_fail_midway_leave_what_was_there(store):
    storage.write_bytes(WHERE, b"before")

    def broken() -> Iterator[str]:
        yield "one"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        storage.write_lines(WHERE, broken())
    assert storage.read_bytes(WHERE) == b"before"
