"""A real Ray with dashboard and token authentication on this machine, for as long as a test module needs it."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """Where it answers, and what a user of it has in the environment."""

    address: str
    token: str

    def environment(self) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        return mine | {
            "RAY_API_SERVER_ADDRESS": self.address,
            "RAY_AUTH_TOKEN": self.token,
            "PATH": f"{_BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }


@contextmanager
def ray_head() -> Iterator[Head]:
    """Start it, wait until its dashboard answers, and end it with all its processes."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets in it have names of at most 107 letters
    port, dashboard, agent, client, metrics = _free_ports(5)
    head = Head(f"http://127.0.0.1:{dashboard}", secrets.token_hex(32))
    command = [
        *(_BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        *(f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}", "--dashboard-host=127.0.0.1"),
        *("--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={folder}/ray"),
    ]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=head.environment() | {"RAY_AUTH_MODE": "token"},
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait(head, process, folder / "start.log")
        yield head
    finally:
        _end(process.pid)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _end(session: int) -> None:
    """End all processes of a session at once; Ray's own way takes half a minute on a busy machine."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            if int(text[text.rindex(")") + 2 :].split()[3]) == session:
                os.kill(int(status.parent.name), signal.SIGKILL)


def _wait(head: Head, process: "subprocess.Popen[bytes]", log: Path) -> None:
    request = urllib.request.Request(f"{head.address}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"})
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no Ray came up: {log.read_text()[-2000:]}") from None
            time.sleep(0.3)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
