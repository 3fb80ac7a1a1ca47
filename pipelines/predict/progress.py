"""How far the run is: a bar on a terminal, a line now and then in a log."""

import time
from types import TracebackType

from rich import progress as bars

from pipelines.console import console, say
from pipelines.follow import duration
from pipelines.predict.piece import Done

_LOG_SECONDS = 30.0


class Progress:
    """Counts rows of finished pieces."""

    def __init__(self, rows: int, pieces: int) -> None:
        self._rows, self._pieces = rows, pieces
        self._done_rows = self._done_pieces = self._rejects = 0
        self._started = self._spoken = time.monotonic()
        self._bar: bars.Progress | None = None
        self._task: bars.TaskID | None = None

    def __enter__(self) -> "Progress":
        if console().is_terminal:
            columns = (
                bars.TextColumn("predicting"),
                bars.BarColumn(),
                bars.TaskProgressColumn(),
                bars.TextColumn("{task.fields[note]}"),
                bars.TimeRemainingColumn(),
            )
            self._bar = bars.Progress(*columns, console=console(), transient=True)
            self._task = self._bar.add_task("", total=self._rows, note=f"0/{self._pieces} pieces")
            self._bar.start()
        return self

    def done(self, rows: int, done: Done) -> None:
        """Note a finished piece."""
        self._done_rows += rows
        self._done_pieces += 1
        self._rejects += sum(done.rejects.values())
        note = f"{self._done_pieces}/{self._pieces} pieces" + (f", {self._rejects:,} rejects" if self._rejects else "")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=rows, note=note)
        elif time.monotonic() - self._spoken > _LOG_SECONDS:
            self._spoken = time.monotonic()
            share = self._done_rows / max(1, self._rows)
            left = (self._spoken - self._started) * (1 - share) / max(share, 1e-9)
            say(f"{note}, {share:.0%}, about {duration(left)} left")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
