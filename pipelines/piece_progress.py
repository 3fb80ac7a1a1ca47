"""How far a stage that works by pieces is: a bar on a terminal, a line now and then in a log."""

import time
from types import TracebackType

from rich import progress as bars

from pipelines.console import console, say
from pipelines.quantities import duration

_LOG_SECONDS = 30.0


class PieceProgress:
    """Counts finished pieces by their weight: bytes they were expected to hold, or rows.

    Args:
        what: the work's name: "preprocessing".
        total: weight of all pieces.
    """

    def __init__(self, what: str, total: int, pieces: int) -> None:
        self._what, self._total = what, max(1, total)
        self._pieces = pieces
        self._done_pieces = 0
        self._done_weight = 0
        self._rejects = 0
        self._started = self._spoken = time.monotonic()
        self._bar: bars.Progress | None = None
        self._task: bars.TaskID | None = None

    def __enter__(self) -> "PieceProgress":
        if console().is_terminal:
            columns = (
                bars.TextColumn(self._what),
                bars.BarColumn(),
                bars.TaskProgressColumn(),
                bars.TextColumn("{task.fields[note]}"),
                bars.TimeRemainingColumn(),
            )
            self._bar = bars.Progress(*columns, console=console(), transient=True)
            self._task = self._bar.add_task("", total=self._total, note=f"0/{self._pieces} pieces")
            self._bar.start()
        return self

    def done(self, weight: int, rejects: int) -> None:
        """Note a finished piece and how much of it was set aside."""
        self._done_pieces += 1
        self._done_weight += weight
        self._rejects += rejects
        note = f"{self._done_pieces}/{self._pieces} pieces" + (f", {self._rejects:,} rejects" if self._rejects else "")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=weight, note=note)
        elif time.monotonic() - self._spoken > _LOG_SECONDS:
            self._spoken = time.monotonic()
            share = self._done_weight / self._total
            left = (self._spoken - self._started) * (1 - share) / max(share, 1e-9)
            say(f"{note}, {share:.0%}, about {duration(left)} left")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
