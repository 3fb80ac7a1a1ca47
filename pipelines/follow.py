"""What the driver tells while workers train: it follows their journal and events, and ships figures to MLflow.

A stage says in `_line` what of the figures a person wants to see.
"""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from pipelines.console import say, warn
from pipelines.quantities import duration
from pipelines.run_folder import Events, RunDir
from pipelines.tracking.journal import Entry, Journal, read

_POLL_S = 0.5


class Follower(ABC):
    """Follows a run from a background thread until `stop`."""

    def __init__(self, run: RunDir, max_steps: int, ship: Callable[[int], None]) -> None:
        self._journal, self._events = Journal(run.path), Events(run)
        self._max_steps, self._ship = max_steps, ship
        self._shown: set[tuple[int, bool]] = set()
        self._identity: tuple[int, int] | None = None
        self._journal_offset, (_, self._events_offset) = 0, self._events.read()
        self._previous: Entry | None = None
        self._new_entries()  # what is there already was shown before
        self._complained = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="pmlm-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tell what is left and end."""
        self._stop.set()
        self._thread.join()
        self._guarded(self._poll)

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_S):
            self._guarded(self._poll)

    def _guarded(self, work: Callable[..., None], *told: Any) -> None:
        """A file system away for a moment, or a closed terminal, ends neither this thread nor the run."""
        try:
            work(*told)
        except Exception as error:
            if not self._complained:
                self._complained = True
                with contextlib.suppress(Exception):
                    warn(f"progress cannot be shown ({type(error).__name__}: {error}); training goes on")

    def _poll(self) -> None:
        events, self._events_offset = self._events.read(self._events_offset)
        for event in events:
            self._guarded(self._tell_event, event)
        for entry in self._new_entries():
            self._guarded(self._tell_entry, entry)

    def _tell_entry(self, entry: Entry) -> None:
        line = self._line(entry)
        if line:
            say(line)

    def _new_entries(self) -> list[Entry]:
        try:
            status = self._journal.path.stat()
        except FileNotFoundError:
            return []
        if self._identity != (status.st_dev, status.st_ino) or status.st_size < self._journal_offset:
            # Cut back on a resumption (a new file was put in place): what was shown stays shown.
            self._identity, self._journal_offset = (status.st_dev, status.st_ino), 0
            self._previous = None
        entries = []
        for entry, after in read(self._journal.path, self._journal_offset):
            self._journal_offset = after
            name = (entry.step, any(figure.startswith("eval/") for figure in entry.metrics))
            if name not in self._shown:
                self._shown.add(name)
                entries.append(entry)
        return entries

    def _tell_event(self, event: dict[str, Any]) -> None:
        kind, text, step = event.get("kind"), event.get("text", ""), int(event.get("step", 0))
        if kind == "checkpoint":
            self._ship(step)
            if text:
                say(f"step {step}  checkpoint {text}")
        elif kind == "resumed":
            self._shown = {name for name in self._shown if name[0] <= step}
            self._previous = None
            say(text)
        elif kind == "warning":
            warn(text)
        elif text:
            say(text)

    @abstractmethod
    def _line(self, entry: Entry) -> str:
        """One line for an entry of the journal; "" for none."""

    def _left(self, entry: Entry) -> str | None:
        if self._previous is None or not self._previous.step < entry.step < self._max_steps:
            return None
        pace = (entry.time - self._previous.time) / (entry.step - self._previous.step)
        return duration(pace * (self._max_steps - entry.step)) if pace >= 0 else None  # the clock was put back
