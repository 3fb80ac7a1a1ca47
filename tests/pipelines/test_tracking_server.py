"""A real `mlflow server` that is away at the start, comes, dies, and comes back: every figure arrives once."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.pretrain import run as stage
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.loop import train
from pipelines.sync.config import SyncConfig
from pipelines.sync.run import run as sync
from pipelines.team import Team
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink
from tests.pipelines.test_pretrain_loop import OPTIONS
from tests.pipelines.training_without_ray import config_for, curve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Server:
    """`mlflow server` on a fixed port and store; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self._folder
            )
        wait_for(self._answers, 240, "the server's answer")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def test_figures_arrive_once_whatever_the_server_does(tmp_path: Path, server: Server) -> None:
    warnings: list[str] = []
    run_dir = tmp_path / "run"
    journal = Journal(run_dir)
    begin = time.monotonic()
    sink = MlflowSink(run_dir, server.uri, "pmlm", "outage", {"seed": 0}, {"blocks": "abc"}, warn=warnings.append)
    for step in range(1, 2001):  # the server is away: nothing may wait for it
        journal.append(step, {"train/loss": 1.0 / step, "learning_rate": 1e-4})
        sink.ship(step)
    assert time.monotonic() - begin < 5
    wait_for(lambda: len(warnings) == 1, 60, "the warning")

    server.start()
    assert sink.flush(120)
    for step in range(2001, 4001):  # killed in the middle of being sent to
        journal.append(step, {"train/loss": 1.0 / step, "learning_rate": 1e-4})
        sink.ship(step)
        if step == 3000:
            server.kill()
    assert not sink.flush(1.0)
    wait_for(lambda: len(warnings) == 2, 60, "the warning of the second outage")
    server.start()
    assert sink.flush(120)
    assert len(warnings) == 2

    server.kill()
    journal.append(4001, {"train/loss": 0.5})
    assert not sink.finish("FINISHED", timeout=2.0)
    server.start()
    sync(SyncConfig(run_dir=str(run_dir), tracking_uri=server.uri))

    record = Record.load(run_dir)
    assert record is not None
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("pmlm").experiment_id])
    assert run.info.run_id == record.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "0"}
    assert run.data.tags["blocks"] == "abc"
    found = [(m.step, m.value) for m in client.get_metric_history(record.run_id, "train/loss")]
    assert found == [(step, 1.0 / step) for step in range(1, 4001)] + [(4001, 0.5)]


def test_a_run_without_mlflow_from_beginning_to_end_is_sent_afterwards(
    tmp_path: Path, server: Server, blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = config_for(blocks, tmp_path / "out", **OPTIONS, cpus_per_worker=1, tracking_uri=server.uri)
    monkeypatch.setattr(stage, "_fit", lambda plan: train(plan, Team()))
    stage.run(PretrainConfig(**options))
    run_dir = tmp_path / "out" / "run"
    stage.run(PretrainConfig(**options | {"output_dir": str(tmp_path / "peace"), "tracking_uri": "none"}))
    assert curve(run_dir) == curve(tmp_path / "peace" / "run")
    server.start()
    sync(SyncConfig(run_dir=str(run_dir), tracking_uri=server.uri))
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("pmlm-pretrain").experiment_id])
    assert run.info.status == "FINISHED"
    for prefix in ("train/", "eval/"):
        found = {m.step: m.value for m in client.get_metric_history(run.info.run_id, f"{prefix}loss")}
        assert found == {step: figures[f"{prefix}loss"] for step, figures in curve(run_dir, prefix).items()}
        assert found
