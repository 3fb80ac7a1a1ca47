"""The live table: for each benchmark the best so far, trials done, running, stopped and failed, and the time left."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table

from pipelines.quantities import duration


@dataclass
class Standing:
    """How one benchmark's sweep stands. Written by Tune's thread, read by the one that shows it.

    Attributes:
        total: trials of the phase.
        best, best_point: the best final score of the phase, and its configuration.
        best_epoch, best_epoch_point: the best score of an epoch, on a part of the split or decoded greedily: not to be
            compared with a final one, and shown only until there is one.
        outcomes: how each trial of the phase ended: finished, stopped or failed; those of an earlier command, too.
        before: how many had ended when this command began.
    """

    benchmark: str
    metric: str
    total: int = 0
    phase: str = "waiting"
    best: float | None = None
    best_point: str = ""
    best_epoch: float | None = None
    best_epoch_point: str = ""
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
        """A new phase: its trials are counted anew, but for those that ended before, and so is the best of them: the
        best single trial of a search is no measure for finalists, whose means count."""
        self.phase, self.total = phase, total
        self.best, self.best_point, self.best_epoch, self.best_epoch_point = None, "", None, ""
        self.running = set()
        self.outcomes = dict.fromkeys(ended, "finished")
        self.before = len(self.outcomes)
        self.began = time.monotonic()

    def lead(self, score: float, point: str, *, final: bool) -> None:
        """A score that may be the best: a trial's final one, or that of an epoch."""
        if final and (self.best is None or score > self.best):
            self.best, self.best_point = score, point
        elif not final and (self.best_epoch is None or score > self.best_epoch):
            self.best_epoch, self.best_epoch_point = score, point

    def leads(self) -> tuple[str, str]:
        """What is best, in words, and its configuration."""
        if self.best is not None:
            return f"best trial {self.metric} {self.best:.2f}", self.best_point
        if self.best_epoch is not None:
            return f"best epoch so far {self.metric} {self.best_epoch:.2f}", self.best_epoch_point
        return "", ""

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
        for name in ("best of the phase", "done", "running", "stopped", "failed", "left"):
            table.add_column(name, justify="right")
        table.add_column("its configuration", overflow="fold")
        with self.lock:
            for each in self.standings.values():
                best, point = each.leads()
                table.add_row(
                    each.benchmark, each.phase, best, f"{each.done}/{each.total}", str(len(each.running)),
                    str(each.count("stopped")), str(each.count("failed")), each.left(), point,
                )  # fmt: skip
        return table

    def line(self) -> str:
        """The same in one line, for a log."""
        with self.lock:
            return "   ".join(_line(each) for each in self.standings.values())


def _line(each: Standing) -> str:
    parts = [f"{each.benchmark} {each.phase} {each.done}/{each.total}", f"{len(each.running)} running"]
    parts += [f"{count} {name}" for name in ("stopped", "failed") if (count := each.count(name))]
    best, point = each.leads()
    if best:
        parts.append(f"{best} ({point})")
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
