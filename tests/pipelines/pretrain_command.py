"""A real `pmlm pretrain` of two workers, for tests that take something away from it."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.run_folder import Events, RunDir
from pipelines.tracking.journal import Journal
from tests.pipelines.training_without_ray import config_for
from tests.processes import PMLM

STEPS = 90
OPTIONS = {
    "max_steps": STEPS,
    "save_steps": 10,
    "eval_steps": 30,
    "eval_rows": 16,
    "logging_steps": 1,
    "num_workers": 2,
    "cpus_per_worker": 1,
    "hidden_dropout_prob": 0.1,
    "run_name": "run",
}


class Command:
    """A `pmlm pretrain` in a session of its own."""

    def __init__(self, blocks: str, output: Path, environment: dict[str, str] | None = None, **options: Any) -> None:
        given = config_for(blocks, output, **{**OPTIONS, **options})
        arguments = [f"--{name}={value}" for name, value in given.items()]
        self.run = RunDir(output / "run")
        self.log = output.with_suffix(".log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PMLM, "pretrain", *arguments],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
        )

    def wait_for_step(self, step: int, limit: float = 300) -> None:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"ended early:\n{self.said()}"
            if any(entry.step >= step for entry in Journal(self.run.path).entries()):
                return
            time.sleep(0.02)
        raise AssertionError(f"step {step} was not reached in {limit} s:\n{self.said()}")

    def wait_for_event(self, kind: str, times: int = 1, limit: float = 300) -> None:
        deadline = time.monotonic() + limit
        while sum(event["kind"] == kind for event in Events(self.run).read()[0]) < times:
            assert self.process.poll() is None, f"ended early:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {times} x '{kind}' in {limit} s:\n{self.said()}"
            time.sleep(0.02)

    def worker_pid(self, rank: int) -> int:
        events, _ = Events(self.run).read()
        return [event["pid"] for event in events if event["kind"] == "worker" and event["rank"] == rank][-1]

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()
