"""gs:// through a server that speaks Google's protocol, in a process of its own: pyarrow opens with the GIL held."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from oracles.made_blocks import build, check

from pmlm_core import storage
from pmlm_core.corpus.blocks import BlockSet
from pmlm_core.errors import DataError
from tests.bucket_server import put_folder

pytest.importorskip("gcp_storage_emulator", reason="pip install gcp-storage-emulator")


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, str]]:
    """An address in a bucket, and the query that leads there."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--port", str(port), "--in-memory"]
    server = subprocess.Popen([*command, "--default-bucket", "texts"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield "gs://anonymous@texts", f"?endpoint_override=localhost:{port}&scheme=http"
    finally:
        server.kill()
        server.wait()


def test_files_of_a_google_bucket(bucket, tmp_path):
    folder = "/some/folder".join(bucket)
    where = storage.join(folder, "a.json")
    assert not storage.exists(where)
    storage.write_bytes(where, b"one")
    storage.write_bytes(where, b"other")
    assert storage.read_bytes(where) == b"other"
    assert storage.size(where) == 5
    assert list(storage.names_in(folder)) == ["a.json"]
    (tmp_path / "large").write_bytes(os.urandom(9 << 20))  # not read: this server does not answer that
    storage.copy_file(tmp_path / "large", storage.join(folder, "large"))
    assert storage.size(storage.join(folder, "large")) == 9 << 20
    storage.write_lines(storage.join(folder, "lines"), ["a", "ö"])
    storage.fetch_file(storage.join(folder, "lines"), tmp_path / "lines")
    assert (tmp_path / "lines").read_text() == "a\nö\n"
    assert list(storage.folders_in("/some".join(bucket))) == ["folder"]
    storage.remove_folder(folder)
    assert list(storage.names_in(folder)) == []
    with pytest.raises(DataError, match=r"a\.json.* cannot be read"):
        storage.read_bytes(where)


def test_blocks_in_a_google_bucket_are_read_by_parts(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "made").mkdir()
    shards = build(tmp_path / "made")
    folder = "/blocks".join(bucket)
    put_folder(tmp_path / "made", folder)
    opened = BlockSet.open(folder)
    check(opened.rows([0, 2_600], 1), shards, [0, 2_600], [1, 1])
    assert len(list((tmp_path / "cache" / "blocks").iterdir())) == 2
    everything = np.arange(len(opened))
    check(opened.rows(everything, 0), shards, everything.tolist(), [0] * len(everything))
