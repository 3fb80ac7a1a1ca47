"""A store kept up to date behind the command's back; one that is away costs a warning, and is caught up with later."""

import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from contextvars import ContextVar

from pipelines.tracking.redact import redact
from pipelines.upload.ending import UPLOADING
from pmlm_core import storage

_LEAVING_S, _LEAVING_PATIENCE_S = 240.0, 10.0  # within the grace that a leaving command gives its workers
_given_up: ContextVar[threading.Event | None] = ContextVar("pmlm_upload_given_up", default=None)
_left_out: ContextVar[threading.Event | None] = ContextVar("pmlm_upload_left_out", default=None)


class GivenUp(Exception):
    """Nobody waits for this upload any more: the run may be another command's by now."""


def check_wanted() -> None:
    """Called before anything is changed in a store, in a thread of `Uploads` or with a copy of its context.

    Raises:
        GivenUp: the command has not waited for the end of it.
    """
    given_up = _given_up.get()
    if given_up is not None and given_up.is_set():
        raise GivenUp


def not_all_there() -> None:
    """Called by what brings a store up to date, in a thread of `Uploads`, when it leaves out what should be there."""
    left_out = _left_out.get()
    if left_out is not None:
        left_out.set()


class Uploads:
    """Calls `mirror` in a background thread, which `wake` starts and `close` ends."""

    def __init__(
        self,
        mirror: Callable[[Callable[[str], None]], Iterable[str]],
        home: str,
        tell: Callable[[str, str], None],
        what: str = "checkpoints",
    ) -> None:
        """
        Args:
            mirror: brings `home` up to date; gives the names of what it has copied, and tells a function what it
                leaves out; what should be there counts as missing if it calls `not_all_there`.
            tell: told a kind ("uploaded" or "warning") and a text.
            what: is uploaded, for messages.
        """
        self._mirror_all, self._home, self._tell, self._what = mirror, home, tell, what
        self._wanted, self._closing, self._leaving = threading.Event(), threading.Event(), False
        self._given_up, self._left_out, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._away = False
        self._said: set[str] = set()

    def wake(self) -> None:
        """There is something new; from any thread."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=UPLOADING, daemon=True)
                self._thread.start()
        self._wanted.set()

    def close(self, leaving: bool = False) -> bool:
        """Catch up with what is missing, or say that it cannot be; raises nothing. Returns whether all is there.

        Args:
            leaving: the machine goes, or the user waits for the end: a store that is away is not waited for, and one
                that is slow for four minutes at most; `ending.end` then ends the process. The same command catches up.
        """
        self._leaving = leaving
        self._closing.set()
        self.wake()
        assert self._thread is not None, "`wake` has started it"
        try:  # not to join it: a thread whose `join` a signal has interrupted counts as ended, in Python 3.11
            self._ended.wait(_LEAVING_S if leaving else None)
        finally:
            if still_at_it := not self._ended.is_set():
                self._given_up.set()
        if not still_at_it:
            self._thread.join()
        else:
            self._tell(
                "warning",
                f"{redact(self._home)} has not taken all {self._what} within {_LEAVING_S / 60:g} minutes; the same "
                "command again catches up",
            )
        return not (self._away or self._left_out.is_set() or still_at_it)

    def _work(self) -> None:
        _given_up.set(self._given_up)
        _left_out.set(self._left_out)
        try:
            last = False
            while not last:
                self._wanted.wait()
                self._wanted.clear()
                last = self._closing.is_set()
                with storage.patient_for(_LEAVING_PATIENCE_S) if self._leaving else nullcontext():
                    self._mirror(last)
        finally:
            self._ended.set()

    def _mirror(self, last: bool) -> None:
        self._left_out.clear()
        try:
            for name in self._mirror_all(self._warn_once):
                self._tell("uploaded", f"{name} uploaded to {redact(self._home)}")
            self._away = False
        except GivenUp:
            pass
        except Exception as error:
            if not self._away or last:
                then = "the same command again catches up" if last else "training goes on, the next upload catches up"
                self._tell(
                    "warning", f"{self._what} cannot be uploaded to {redact(self._home)} ({short(error)}); {then}"
                )
            self._away = True

    def _warn_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._tell("warning", text)


def with_uploads(ship: Callable[[int], None], uploads: Uploads | None) -> Callable[[int], None]:
    """What is called with the step of a new checkpoint: figures are shipped, and it is copied."""

    def news(step: int) -> None:
        ship(step)
        if uploads is not None:
            uploads.wake()

    return news


def short(error: BaseException) -> str:
    """An error in one line without secrets."""
    return redact(" ".join(str(error).split()))[:300]
