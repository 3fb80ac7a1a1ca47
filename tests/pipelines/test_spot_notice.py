"""A cloud's notice, told by a server that answers as its metadata does, reaches Ray."""

import datetime
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines import spot_notice
from tests.ray_nodes import cluster_of


class Metadata(ThreadingHTTPServer):
    """EC2's (with tokens only, as its images have it) and Compute Engine's metadata of one machine."""

    goes: datetime.datetime | None = None
    asked = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert 1 <= int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
        self._answer(200, "a-token")

    def do_GET(self) -> None:
        self.server.asked += 1
        goes = self.server.goes
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != "a-token":
                self._answer(401, "")
            elif goes is None:
                self._answer(404, "")
            else:
                self._answer(200, json.dumps({"action": "terminate", "time": f"{goes:%Y-%m-%dT%H:%M:%SZ}"}))
        elif self.path == "/computeMetadata/v1/instance/preempted":
            if self.headers["Metadata-Flavor"] != "Google":
                self._answer(403, "")
            else:
                self._answer(200, "FALSE" if goes is None else "TRUE")
        else:
            self._answer(500, self.path)

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # metadata is asked of the machine, past any proxy
    server = Metadata(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def in_two_minutes() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=120)


@pytest.mark.parametrize(("cloud", "left"), [(spot_notice.aws, 120), (spot_notice.google, 30)])
def test_what_a_cloud_announces(metadata: Metadata, cloud, left: float):
    look = cloud(metadata.address)
    assert look() is None
    metadata.goes = in_two_minutes()
    assert look() == pytest.approx(left, abs=5)


def test_a_time_that_has_come_leaves_nothing(metadata: Metadata):
    metadata.goes = in_two_minutes() - datetime.timedelta(hours=1)
    assert spot_notice.aws(metadata.address)() == 0


def test_metadata_that_do_not_answer_are_said_once_and_asked_again(metadata: Metadata, capsys):
    answers = iter([OSError("no route"), OSError("no route"), None, OSError("no route"), 90.0])

    def look() -> float | None:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert spot_notice.wait_for_notice(look, pause=0.01) == 90
    assert capsys.readouterr().out.count("cannot be read (no route)") == 2


@pytest.mark.slow
@pytest.mark.parametrize("announced", [True, False])
def test_ray_hears_of_it(metadata: Metadata, announced: bool):
    from ray._raylet import GcsClient

    with cluster_of(0) as cluster:
        how = ["--cloud", "aws", "--metadata_url", metadata.address] if announced else ["--now", "60"]
        watcher = subprocess.Popen(
            [sys.executable, "-m", "pipelines.spot_notice", *how],
            env=os.environ | {"RAY_ADDRESS": cluster.address}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            while announced and metadata.asked == 0:
                assert watcher.poll() is None
                time.sleep(0.1)
            metadata.goes = in_two_minutes()
            said, _ = watcher.communicate(timeout=200)
        finally:
            watcher.kill()
        assert re.search(r"this machine is taken in \d+ s: Ray has been told", said)
        client, deadline, left = GcsClient(address=cluster.address), time.monotonic() + 60, ""
        while "this machine is taken in" not in left:  # it is idle, so it leaves at once
            assert time.monotonic() < deadline, left
            (node,) = client.get_all_node_info().values()
            left = node.death_info.reason_message
            time.sleep(0.1)
