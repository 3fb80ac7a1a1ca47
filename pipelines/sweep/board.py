"""The live table: for each benchmark the best so far, trials done, running, stopped and failed, and the time left."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table

from pipelines.follow import duration


@dataclass
class Standing:
    """How one benchmark's sweep stands. Written by Tune's thread, read by the one that shows it.

    Attributes:
        total: trials of the phase.
        outcomes: how each trial of the phase ended: finished, stopped or failed; those of an earlier command, too.
        before: how many had ended when this command began.
    """

    benchmark: str
    metric: str
    total: int = 0
    phase: str = "waiting"
    best: float | None = None
    best_point: str = ""
    running: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    before: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        return len(self.outcomes)

    def count(self, outcome: str) -> int:
        return sum(each == outcome for each in self.outcomes.values())

    def begin(self, phase: str, total: int, ended: Iterable[str]) -> None:
        """A new phase: its trials are counted anew, but for those that ended before; the best stays."""
        self.phase, self.total = phase, total
        self.running = set()
        self.outcomes = dict.fromkeys(ended, "finished")
        self.before = len(self.outcomes)
        self.began = time.monotonic()

    def left(self) -> str:
        """Time left by the pace of the trials that have ended, "" before there are any."""
        here = self.done - self.before
        if here <= 0 or self.done >= self.total:
            return ""
        pace = (time.monotonic() - self.began) / here
        return duration(pace * (self.total - self.done))


class Board:
    """The standings of all benchmarks of a sweep."""

    def __init__(self, standings: Iterable[Standing]) -> None:
        self.standings = {standing.benchmark: standing for standing in standings}
        self.lock = threading.Lock()

    def failed(self, benchmark: str) -> None:
        """A benchmark has come to nothing."""
        with self.lock:
            self.standings[benchmark].phase = "FAILED in"

    def table(self) -> Table:
        """For a terminal."""
        table = Table()
        table.add_column("benchmark")
        table.add_column("phase")
        for name in ("best trial so far", "done", "running", "stopped", "failed", "left"):
            table.add_column(name, justify="right")
        table.add_column("its configuration", overflow="fold")
        with self.lock:
            for each in self.standings.values():
                best = "" if each.best is None else f"{each.metric} {each.best:.2f}"
                table.add_row(
                    each.benchmark, each.phase, best, f"{each.done}/{each.total}", str(len(each.running)),
                    str(each.count("stopped")), str(each.count("failed")), each.left(), each.best_point,
                )  # fmt: skip
        return table

    def line(self) -> str:
        """The same in one line, for a log."""
        with self.lock:
            return "   ".join(_line(each) for each in self.standings.values())


def _line(each: Standing) -> str:
    parts = [f"{each.benchmark} {each.phase} {each.done}/{each.total}", f"{len(each.running)} running"]
    parts += [f"{count} {name}" for name in ("stopped", "failed") if (count := each.count(name))]
    if each.best is not None:
        parts.append(f"best trial {each.metric} {each.best:.2f} ({each.best_point})")
    if left := each.left():
        parts.append(f"{left} left")
    return ", ".join(parts)


def in_words(params: dict[str, object]) -> str:
    """A configuration on one line.

    >>> in_words({"learning_rate": 0.00021234, "batch_size": 16})
    'learning_rate 0.000212, batch_size 16'
    """
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )
