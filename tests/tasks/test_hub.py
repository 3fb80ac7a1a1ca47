"""`hf://`: fetched by the hub's own client from a small server that speaks its protocol, or a clear error."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
READ = """
import sys
from pmlm_core.errors import PmlmError
from pmlm_core.tasks.registry import get_task
for argument in sys.argv[1:]:
    task, folder, split = argument.split()
    try:
        for example in get_task(task).read(folder, split):
            print(example.id, example.text_a, example.label)
    except PmlmError as error:
        print("ERROR", type(error).__name__, error)
"""


@pytest.fixture
def hub(tmp_path):
    """(address, paths asked for) of a hub with one data set, own/glue, of two tasks."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"sentence": ["good", "bad"], "label": [1, 0], "idx": [0, 1]}), sink)
    body = sink.getvalue().to_pybytes()
    files = ["README.md", "sst2/train-00000-of-00001.parquet", "sst2/validation-00000-of-00001.parquet"]
    files += ["cola/validation-00000-of-00001.parquet"]
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if "/tree/" in self.path:
                size = len(body)
                content = json.dumps([{"type": "file", "path": file, "size": size, "oid": COMMIT} for file in files])
                content = content.encode()
            elif self.path.startswith("/api/datasets/own/glue"):
                siblings = [{"rfilename": file} for file in files]
                content = json.dumps({"id": "own/glue", "sha": COMMIT, "siblings": siblings}).encode()
            elif "/resolve/" in self.path:
                content = body
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def read_from(endpoint, cache, *arguments):
    """Read in a process of its own: the client takes its settings from the environment when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", READ, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_a_split_is_fetched_and_nothing_else(hub, tmp_path):
    endpoint, asked = hub
    done = read_from(endpoint, tmp_path, "sst2 hf://own/glue dev", "cola hf://own/glue@main train")
    *examples, error = done.stdout.splitlines()
    assert examples == ["0 good 1", "1 bad 0"], done.stderr
    assert error.startswith("ERROR NoFile no file for split 'train' of task 'cola': looked for ")
    assert "hf://own/glue@main" in error
    fetched = {path.split("/resolve/")[1].partition("/")[2] for path in asked if "/resolve/" in path}
    assert fetched == {"sst2/validation-00000-of-00001.parquet"}


def test_a_hub_that_cannot_be_reached(tmp_path):
    done = read_from("http://127.0.0.1:9", tmp_path, "cola hf://own/glue dev")
    assert done.stdout.startswith("ERROR DataError hf://own/glue: the hub did not give this data set"), done.stderr
    assert "give its folder as --data_dir" in done.stdout
