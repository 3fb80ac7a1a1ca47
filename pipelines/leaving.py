"""Leaving in good order: the workers hear that they have to go, agree on a step, write a checkpoint of it, and end.

Who may say so: the command itself (SIGTERM, Ctrl-C), by a line in a file of the run's folder; whoever takes a worker's
process away (SIGTERM to it); and whoever takes its machine away, by draining the node in Ray (an autoscaler, or
`spot_notice.py` at a cloud's word).
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.team import Team

GRACE_S = 300.0
"""How long the command waits for the workers' checkpoint; a second signal ends it at once."""
_BEGUN, _ASKED, _LEFT = "begun", "asked", "left"
_LOOK_S, _DRAIN_S = 0.5, 2.0


class Terminated(KeyboardInterrupt):
    """SIGTERM came: all that is done at Ctrl-C is done, and the exit code says which it was."""


def in_a_hurry() -> bool:
    """Whether the exception under way is a signal that came after another one: nothing is waited for any more."""
    met, signals = sys.exception(), 0
    while met is not None:
        signals += isinstance(met, KeyboardInterrupt)
        met = met.__cause__ or met.__context__
    return signals > 1


def heed_sigterm() -> None:
    """Raise `Terminated` in the main thread at SIGTERM, which would end the process without a word."""

    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Put this process's own handler of SIGTERM back at the end; starting Ray replaces it by one that just exits.

    Raises:
        Terminated: SIGTERM came meanwhile.
    """
    mine = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ended:
        if ended.code == signal.SIGTERM and callable(mine):
            raise Terminated from None
        raise
    finally:
        if callable(mine) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, mine)


class Request:
    """The file by which workers say that they have begun, a command asks them to leave, and they say that they have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._looked, self._found = -_LOOK_S, False

    def prepare(self) -> None:
        """Make it, empty: a network file system may hide a new file for a minute, but tells what is in an old one."""
        with contextlib.suppress(OSError):  # a full disk is for the workers to meet
            self.path.write_bytes(b"")

    def ask(self) -> None:
        """Ask the workers to leave; OSError if that cannot be written."""
        self._add(_ASKED)

    def tell_begun(self) -> None:
        """Say that workers run, which a command can ask to leave."""
        with contextlib.suppress(OSError):  # a full disk is for the first checkpoint to meet
            self._add(_BEGUN)

    def tell_left(self) -> None:
        """Say that they have left; OSError if that cannot be written."""
        self._add(_LEFT)

    def is_asked(self) -> bool:
        """Whether the command asks; looks at most twice a second."""
        if not self._found and time.monotonic() - self._looked >= _LOOK_S:
            self._looked, self._found = time.monotonic(), _ASKED in self._words()
        return self._found

    @staticmethod
    def asks(said: str) -> bool:
        """Whether the words in such a file ask the workers to leave."""
        return _ASKED in said.split()

    def has_begun(self) -> bool:
        return _BEGUN in self._words()

    def has_left(self) -> bool:
        """Whether the last that began have left; Ray may have started others since."""
        return [word for word in self._words() if word != _ASKED][-1:] == [_LEFT]

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _add(self, word: str) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, f"{word}\n".encode())
        finally:
            os.close(handle)

    def _words(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").split()
        except OSError:
            return []


class Left(Exception):
    """All workers have left after a checkpoint; training is not finished."""


class Notices:
    """One worker's part in agreeing on the step to leave at."""

    def __init__(self, team: "Team") -> None:
        self._team, self._drains_at = team, time.monotonic() + _DRAIN_S

    def share(self) -> list[float]:
        """Numbers to be summed over the workers at a step: who was told to leave, and whether to ask Ray for drains."""
        ask = self._team.leads and time.monotonic() >= self._drains_at
        return [float(self._team.told()), float(ask)]

    def agreed(self, sums: Sequence[float]) -> bool:
        """Whether to leave at this step, the same on every worker; `sums` are those of `share`."""
        told, ask = sums
        if ask:  # an exchange through Ray, too dear for every step
            self._drains_at = time.monotonic() + _DRAIN_S
        return told > 0 or (ask > 0 and self._team.draining())


_sigterm = threading.Event()


def note_sigterm() -> None:
    """In a worker's main thread: take SIGTERM as a notice; Ray's own handler would end the process in mid-step."""
    signal.signal(signal.SIGTERM, lambda number, frame: _sigterm.set())


def was_told() -> bool:
    """Whether this worker's process was sent SIGTERM."""
    return _sigterm.is_set()


def torch_config(backend: str) -> Any:
    """Ray Train's settings of torch, for workers that take SIGTERM as a notice.

    Training runs in a thread and only the main thread of a process may handle signals; this is Ray's way into it.
    """
    from ray.train.torch import TorchConfig

    ordinary = TorchConfig(backend=backend).backend_cls

    class Noting(ordinary):  # type: ignore[misc, valid-type]
        def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
            super().on_training_start(worker_group, backend_config)
            worker_group.execute(note_sigterm)

    class NotingConfig(TorchConfig):
        @property
        def backend_cls(self) -> Any:
            return Noting

    return NotingConfig(backend=backend)
