"""The journal of a run: every figure, one JSON line a step, on disk before anything else hears of it.

Training writes here and never waits for a server. What was written survives `kill -9`; a line torn by the kill is
dropped when the journal is next opened. Before a checkpoint it is forced to disk: who goes on from there computes none
of its steps again. On resume the steps after the checkpoint are cut away, so that a step is in the journal once.
"""

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pmlm_core.durable import force

FILE_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Entry:
    """The figures of one step; `time` is in seconds since the epoch."""

    step: int
    time: float
    metrics: dict[str, float]


class Journal:
    """Append-only `metrics.jsonl` in the folder of a run; one writer at a time.

    >>> import tempfile
    >>> journal = Journal(tempfile.mkdtemp())
    >>> journal.append(10, {"train/loss": 7.5})
    >>> journal.append(20, {"train/loss": 7.1})
    >>> journal.truncate_after(10)
    1
    >>> [entry.metrics for entry in journal.entries()]
    [{'train/loss': 7.5}]
    """

    def __init__(self, run_dir: str | os.PathLike[str], *, say: Callable[[str], None] | None = None) -> None:
        """Open the journal of `run_dir`; `say` hears once if it cannot be written, and otherwise that is an OSError."""
        self.path, self._say, self._said = Path(run_dir) / FILE_NAME, say, False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = None
        self._inode: int | None = None

    def append(self, step: int, metrics: Mapping[str, float], *, at: float | None = None) -> None:
        """Write the figures of `step` in one line, with one system call.

        A figure that is not finite is kept, as the string "nan", "inf" or "-inf": JSON has no number for it.
        `at` is the time in seconds since the epoch, now by default.
        """
        figures = {name: _to_json(float(value)) for name, value in metrics.items()}
        moment = round(time.time() if at is None else at, 3)
        line = json.dumps({"step": int(step), "time": moment, "metrics": figures}, allow_nan=False) + "\n"
        self._guarded(lambda: self._write(line.encode()))

    def sync(self) -> None:
        """Force what was appended to disk, for a checkpoint after which nobody computes it again."""
        if (descriptor := self._descriptor) is not None:
            self._guarded(lambda: self._force(descriptor))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            with contextlib.suppress(OSError):
                self.close()
            if self._say is None:
                raise
            if not self._said:
                self._said = True
                self._say(f"{self.path} cannot be written ({error.strerror}): training goes on, figures are lost")
        else:
            self._said = False

    def _force(self, descriptor: int) -> None:
        os.fsync(descriptor)
        force(self.path.parent)  # in which the file may be new

    def _write(self, line: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            inode = os.fstat(self._descriptor).st_ino
            if self._inode not in (None, inode):  # `truncate_after` of a worker that was put in this one's place
                raise OSError(errno.ESTALE, "another start of this run writes it now")
            self._inode = inode
            drop_torn_tail(self.path)  # not before: what another start is writing is not ours to cut
        if os.write(self._descriptor, line) < len(line):
            # Opening it again cuts the half line off, so that the next one does not grow onto it.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def entries(self) -> Iterator[Entry]:
        """Read the journal from the start; lines that are torn or damaged are passed over."""
        for entry, _ in read(self.path):
            yield entry

    def truncate_after(self, step: int) -> int:
        """Cut away the figures of later steps and return how many lines that were.

        Called on resume with the step of the checkpoint, -1 to start anew. A new file takes the place of the one that
        was there, if any: a worker that was given up writes into the old one.
        """
        self.close()
        dropped = 0
        kept_path = self.path.with_name(FILE_NAME + ".new")
        with kept_path.open("w", encoding="utf-8") as kept:
            for entry, _ in read(self.path):
                if entry.step > step:
                    dropped += 1
                    continue
                figures = {name: _to_json(value) for name, value in entry.metrics.items()}
                kept.write(json.dumps({"step": entry.step, "time": entry.time, "metrics": figures}) + "\n")
            kept.flush()
            os.fsync(kept.fileno())
            # Kept open, so that no other file gets its number while this worker may write.
            self._descriptor = os.open(kept_path, os.O_WRONLY | os.O_APPEND)
            self._inode = os.fstat(self._descriptor).st_ino
        os.replace(kept_path, self.path)
        return dropped

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read(path: Path, offset: int = 0) -> Iterator[tuple[Entry, int]]:
    """Yield each whole entry from byte `offset` on, with the offset just after it; a missing file is an empty one."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # still being written, or torn by a kill
            offset += len(line)
            entry = _parse(line)
            if entry is not None:
                yield entry, offset


def _parse(line: bytes) -> Entry | None:
    try:
        raw = json.loads(line)
        metrics = {str(name): float(value) for name, value in raw["metrics"].items()}
        return Entry(int(raw["step"]), float(raw["time"]), metrics)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def drop_torn_tail(path: Path) -> None:
    """Cut off a last line without its end, so that the next one does not grow onto it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(0, position - 4096)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                if start + newline + 1 < end:
                    file.truncate(start + newline + 1)
                return
            position = start
        file.truncate(0)
