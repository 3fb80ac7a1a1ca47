"""The folder of a run, whatever trains in it: its paths, and the events its workers write down for the driver.

RUN/
    run.json          what the run is
    checkpoints/      see pmlm_core/training/checkpoint.py
    metrics.jsonl     the journal, see pipelines/tracking/journal.py
    events.jsonl      checkpoints, resumptions, warnings: written by the workers, told by the driver
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import lock
from pmlm_core.addresses import path_in
from pmlm_core.errors import ConfigError

RUN_FILE, EVENTS_FILE, CHECKPOINTS = "run.json", "events.jsonl", "checkpoints"


@dataclass(frozen=True)
class RunDir:
    """Paths of one run.

    Attributes:
        home: the driver's folder, where this one stands in for it on a worker's own disk (pipelines/handover).
    """

    path: Path
    home: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record(self) -> Path:
        return self.path / RUN_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def named(self, path: Path) -> str:
        """How the driver names something in here."""
        if self.home is None:
            return str(path)
        return os.path.join(path_in(self.home), path.relative_to(self.path))

    def failure_of(self, attempt: str) -> Path:
        """Where a worker of this attempt leaves the error that no restart would mend."""
        return self.path / f"failure-{attempt}.json"

    def leaving_of(self, attempt: str) -> Path:
        """Where the command asks the workers of this attempt to leave, and they say that they have."""
        return self.path / f"leaving-{attempt}"


def write_record(run: RunDir, content: Mapping[str, Any]) -> None:
    """Write what the run is, whole or not at all, making its folder."""
    run.path.mkdir(parents=True, exist_ok=True)
    temporary = run.path / f".{RUN_FILE}-{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(run.record)
    for left in run.path.glob(f".{RUN_FILE}-*"):  # of a start that was killed before it had written its record
        left.unlink(missing_ok=True)


def check_is_new(path: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ConfigError: it is there, not empty, and has no record of a run.
    """
    if path.exists() and any(
        not left.name.startswith(f".{RUN_FILE}-") and left.name != lock.FILE_NAME for left in path.iterdir()
    ):
        raise ConfigError(f"{path} is not empty and holds no {RUN_FILE}: choose another run_name, or remove the folder")


def unreadable(path: Path, error: OSError) -> ConfigError:
    """For a file of a run that cannot be read at the moment, and may be as good as ever."""
    return ConfigError(
        f"{path} cannot be read: {error.strerror or error}. The run may be as good as ever, nothing was changed: mend "
        "the disk or the permissions and give the same command again"
    )


def whole_lines(data: bytes) -> bytes:
    """What has come of a file of lines, without a last one that is still being written or was torn."""
    return data[: data.rfind(b"\n") + 1]


class Events:
    """Append-only `events.jsonl`, one JSON object a line."""

    def __init__(self, run: RunDir) -> None:
        self.path = run.path / EVENTS_FILE
        self._torn = self._said = False

    def add(self, kind: str, text: str = "", **more: Any) -> None:
        """Append an event, in one write, so that lines of several processes never mix.

        One that cannot be written (disk full) is lost, and said in the worker's output: it must not end training. If
        half of it was written, the next one begins with the end of that line; `read` passes over what is torn.
        """
        line = (json.dumps({"time": round(time.time(), 3), "kind": kind, "text": text, **more}) + "\n").encode()
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if self._torn:
                    line = b"\n" + line
                written = os.write(handle, line)
                self._torn = written < len(line)
            finally:
                os.close(handle)
        except OSError as error:
            reason = error.strerror
        else:
            reason = "disk full" if self._torn else ""
        if not reason:
            self._said = False
        elif not self._said:
            self._said = True
            print(f"{self.path} cannot be written ({reason}); lost: {kind} {text}", file=sys.stderr, flush=True)

    def read(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events from byte `offset` on, and the offset after them."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                raw = file.read()
        except FileNotFoundError:
            return [], offset
        whole = whole_lines(raw)
        events = []
        for line in whole.splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events, offset + len(whole)
