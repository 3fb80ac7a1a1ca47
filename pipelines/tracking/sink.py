"""Ship a run's journal to MLflow from a background thread: training never waits, never fails, and hears one warning.

The thread repeats what failed, waiting 2 s, 4 s, ... up to a minute; a server that was away at the start gets the
whole run when it comes back. What is still unsent when the process ends stays in the journal for `pmlm sync`.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.console import counted, say
from pipelines.console import warn as console_warn
from pipelines.run_folder import CHECKPOINTS
from pipelines.tracking import journal
from pipelines.tracking.delivery import Delivery, WaitsForParent
from pipelines.tracking.ray_job import job_tags
from pipelines.tracking.record import Record
from pipelines.tracking.redact import flatten, in_brief, redact
from pipelines.tracking.store import NONE, Deleted, resolve

_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0
EVERYTHING = sys.maxsize


class MlflowSink:
    """The way to MLflow of the one process that writes a run (rank 0); opened again on the same folder, it goes on.

    `params` may be nested; secrets are taken out. `tags` hold code version and fingerprints. `parent` is the folder of
    the run that this one is part of, a sweep's; this one is created in MLflow after that one. With tracking_uri "none"
    nothing is sent and every call succeeds. Every method may be called from any thread.

    Raises:
        ConfigError: `tracking_uri` is no MLflow store. Nothing else is ever raised.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        tracking_uri: str | None,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        parent: str | os.PathLike[str] | None = None,
        warn: Callable[[str], None] = console_warn,
    ) -> None:
        uri = resolve(tracking_uri)
        self._run_dir, self._warn, self._warned = run_dir, warn, False
        self._condition = threading.Condition()
        self._goal, self._reached = -1, -2  # steps; the first delivery, of step -1, creates the run
        self._hurry, self._closed = False, False
        self._deleted: Deleted | None = None
        self._thread: threading.Thread | None = None
        if uri == NONE:
            return
        try:
            fresh = Record(redact(uri), experiment, run_name, flatten(params or {}), flatten(tags or {}))
            fresh.parent = None if parent is None else os.path.relpath(parent, run_dir)
            record = self._open_record(fresh)
            self._delivery = Delivery(run_dir, uri, record)
        except Exception as error:  # a full disk, a folder without permission: training says so by itself
            self._complain(error)
            return
        self._thread = threading.Thread(target=self._work, name="mlflow-sink", daemon=True)
        self._thread.start()

    def ship(self, up_to_step: int) -> None:
        """Have the figures of steps up to `up_to_step` sent; returns at once.

        Call it when a checkpoint of that step is safe: steps a resumed run will repeat should not be sent before.
        """
        with self._condition:
            self._goal = max(self._goal, up_to_step)
            self._condition.notify_all()

    def tag(self, name: str, value: str | None = None, *, run: str | os.PathLike[str] | None = None) -> None:
        """Set a tag that is known late: how the run ended, which trial won. Returns at once; call it before `finish`.

        It is kept in the run's record first, so a store that is away gets it later.

        Args:
            value: secrets are taken out.
            run: in place of a value, the folder of another run: the tag becomes its id in MLflow, once it has one.
        """
        if self._thread is None:
            return
        with self._condition:
            try:
                if run is None:
                    self._delivery.tag(flatten({name: value}), {})
                else:
                    self._delivery.tag({}, {name: os.path.relpath(run, self._run_dir)})
            except Exception as error:
                self._complain(error)
            self._reached = min(self._reached, self._goal - 1)
            self._condition.notify_all()

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait up to `timeout` seconds for what was asked to be sent; whether it was."""
        deadline = time.monotonic() + timeout
        with self._condition:
            self._hurry = True
            self._condition.notify_all()
            while self._reached < self._goal and self._thread is not None and self._thread.is_alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(min(left, 0.5))
            self._hurry = False
            return self._reached >= self._goal if self._thread is not None else not self._warned

    def finish(self, status: str = "FINISHED", timeout: float = 60.0) -> bool:
        """Send what is left and end the run as FINISHED, FAILED or KILLED; whether that arrived in time.

        Of a run that has not finished, figures go up to its newest checkpoint (`due`). The others stay in the journal,
        and whoever does not go on sends them by `pmlm sync --all`.
        """
        if self._thread is None:
            return not self._warned
        with self._condition:
            self._delivery.record.status = status
            goal = self._goal = max(self._goal, due(self._run_dir, self._delivery.record))
            self._reached = min(self._reached, goal - 1)  # the status has to go in any case
        if self._warned and self._deleted is None:
            self._warn(f"waiting up to {timeout:.0f} s for MLflow, which did not answer before")
        arrived = self.flush(timeout)
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        # A call that hangs may come back later; it must not undo what is noted from here on (a model to register).
        self._delivery.close()
        self._delivery.record.delivered = arrived
        try:
            self._delivery.record.save(self._run_dir)
        except Exception as error:
            self._complain(error)
        self._tell_what_is_left(arrived, goal)
        return arrived

    def _tell_what_is_left(self, arrived: bool, goal: int) -> None:
        sync = f"pmlm sync --run_dir {self._run_dir}"
        if not arrived:
            then = f"When the server is back: {sync}"
            if self._deleted is not None:
                then = f"{self._deleted}. When it is back: {sync}"
            self._warn(f"MLflow has not received all figures of this run; they are kept in {self._run_dir}. {then}")
        elif self._delivery.record.parent is None:  # of its trials a sweep tells
            with contextlib.suppress(Exception):  # a file system that is away, a closed terminal
                if holds_back(self._run_dir, goal):
                    say(
                        f"figures after step {max(goal, 0)} are not sent to MLflow, for the same command does these "
                        f"steps again; if the run is not to go on: {sync} --all"
                    )

    def _open_record(self, fresh: Record) -> Record:
        """Save `fresh` with what the folder's record knows of this run's life before."""
        known = Record.load(self._run_dir)
        if known:
            fresh.run_key, fresh.run_id, fresh.shipped = known.run_key, known.run_id, known.shipped
            fresh.parent = fresh.parent or known.parent
            fresh.tags, fresh.run_tags = {**known.tags, **fresh.tags}, known.run_tags
            fresh.pending_model, fresh.registered = known.pending_model, known.registered
            fresh.pending_artifacts = known.pending_artifacts
        fresh.tags |= job_tags(fresh.tags)
        fresh.save(self._run_dir)
        return fresh

    def _work(self) -> None:
        wait = 0.0
        while True:
            with self._condition:
                if wait:
                    self._pause(wait)
                self._condition.wait_for(lambda: self._reached < self._goal or self._closed)
                if self._closed:
                    return
                goal, asked = self._goal, self._asked()
            try:
                sent = self._delivery.deliver(goal)
            except WaitsForParent:  # which is on its way, or has complained by itself
                self._delivery.forget_connection()
                wait = _FIRST_WAIT
                continue
            except Deleted as error:
                self._deleted = error
                with contextlib.suppress(Exception):
                    self._warn(f"{error}. Training goes on, figures are kept in {self._run_dir}")
                return
            except Exception as error:
                self._complain(error)
                self._delivery.forget_connection()
                wait = min(_LONGEST_WAIT, wait * 2 or _FIRST_WAIT)
                continue
            if self._warned:
                self._warned = False
                with contextlib.suppress(Exception):
                    say(f"MLflow is back: {counted(sent, 'figure')} sent")
            wait = 0.0
            with self._condition:
                if self._asked() == asked:  # else there is a new one, which may have come too late for this call
                    self._reached = max(self._reached, goal)
                self._condition.notify_all()

    def _asked(self) -> tuple[dict[str, str], str]:
        """What is to be sent besides figures."""
        return self._delivery.tags, self._delivery.record.status

    def _pause(self, wait: float) -> None:
        """Wait before the next attempt; with someone waiting in `flush`, never longer than the first wait."""
        end = time.monotonic() + wait
        if not self._condition.wait_for(lambda: self._hurry or self._closed, timeout=wait):
            return
        self._condition.wait_for(lambda: self._closed, timeout=min(_FIRST_WAIT, max(0.0, end - time.monotonic())))

    def _complain(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        with contextlib.suppress(Exception):  # a closed terminal must not end the thread
            self._warn(
                f"MLflow cannot be reached ({type(error).__name__}: {in_brief(error)}); training goes on, the figures "
                f"wait in {self._run_dir} and are sent when it answers"
            )


def due(run_dir: str | os.PathLike[str], record: Record) -> int:
    """The last step whose figures may go: of a run that has not finished, that of its newest checkpoint.

    The same command goes on from there and computes those after it anew, on other workers with other last digits, and
    MLflow takes back none. A part of another run, a sweep's trial, is not tried again once it has FAILED, and a sweep
    as a whole, which counts its trials, does nothing again.
    """
    given_up = record.status == "FAILED" and record.parent is not None
    if record.status == "FINISHED" or given_up or record.tags.get("stage") == "sweep":
        return EVERYTHING
    return _newest_checkpoint(run_dir)


def holds_back(run_dir: str | os.PathLike[str], last: int) -> bool:
    """Whether the journal has figures of steps after `last`."""
    return any(entry.step > last for entry, _ in journal.read(Path(run_dir) / journal.FILE_NAME))


def _newest_checkpoint(run_dir: str | os.PathLike[str]) -> int:
    """The step that a resumed run goes on from, -1 without one or where that cannot be seen."""
    from pmlm_core.training.checkpoint import all_steps, step_of

    try:
        return max((step_of(folder.name) or 0 for folder in all_steps(Path(run_dir) / CHECKPOINTS)), default=-1)
    except OSError:
        return -1
