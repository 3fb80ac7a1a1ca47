"""A trial's folder on a node that may not see the sweep's: one of its own disk stands in for it.

What the trial was before is fetched when it starts; what comes of it is handed over at every epoch and at its end. For
that time the folder is held (pipelines/handover/keeper.py), as a lock holds it on the machine of the command.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipelines.finetune.rundir import MODEL
from pipelines.finetune.upload import best_in
from pipelines.handover import files, sending
from pipelines.handover.keeper import LEASE_S
from pipelines.handover.standin import standin
from pipelines.lock import locked
from pipelines.run_folder import CHECKPOINTS, RunDir
from pipelines.sweep.trials import ENDINGS, has_ended
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pipelines.upload import checkpoints
from pmlm_core import storage
from pmlm_core.errors import PmlmError, TrainingError

_WAIT_S, _LOOK_S = 86400.0, 1.0
_THE_DRIVERS = frozenset({CHECKPOINTS, "ray", MLFLOW_RECORD})


class Place:
    """Where a trial is trained: its own folder."""

    def __init__(self, run: RunDir) -> None:
        self.run = run

    @property
    def folder(self) -> Path:
        return self.run.path

    def fetch_model(self) -> None:
        """Get the model of a trial that has ended, with all else that it left."""

    def fetch_checkpoints(self, metric: str) -> None:
        """Get what a trial whose workers are processes of their own goes on from."""

    def hand_over(self, *, with_checkpoints: bool) -> None:
        """Give the driver what has come since the last time."""


class _Away(Place):
    """A folder that stands in for the trial's own."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        assert run.home is not None
        self._home = run.home

    def fetch(self) -> None:
        for name in storage.names_in(self._home):
            if not name.startswith("."):
                storage.fetch_file(storage.join(self._home, name), self.folder / name)

    def fetch_model(self) -> None:
        for below in (MODEL, *(name for name in storage.folders_in(self._home) if name not in (*_THE_DRIVERS, MODEL))):
            for name in storage.names_in(storage.join(self._home, below)):
                (self.folder / below).mkdir(exist_ok=True)
                storage.fetch_file(storage.join(self._home, below, name), self.folder / below / name)

    def fetch_checkpoints(self, metric: str) -> None:
        def needs(folder: Path) -> str | None:
            return best_in(folder, metric)

        checkpoints.fetch(self.run, self._home, None, lambda text: None, beside=(), needs=needs)

    def hand_over(self, *, with_checkpoints: bool) -> None:
        if with_checkpoints:
            checkpoints.mirror(self.run, self._home, 1, lambda text: None, beside=(), best_first=True)
        sending.send_files(self.folder, self._home, last=ENDINGS, otherwise=_THE_DRIVERS)
        if has_ended(self.folder):
            storage.remove_folder(storage.join(self._home, CHECKPOINTS))


@contextlib.contextmanager
def place_of(folder: Path, keeper: str | None, *, keeps_state: bool = False) -> Iterator[Place]:
    """Where this process works on the trial whose folder that is, alone for the time of the block.

    A space of a few values may propose a point twice, and a machine thought lost may still be at work: whoever comes
    second waits, and then finds what the first has done.

    Args:
        keeper: of the driver's machine; None where every node sees its folders.
        keeps_state: Tune is handed states of the trial, which it keeps in the sweep's folder.

    Raises:
        TrainingError: it is, and this node does not see that.
    """
    if keeper is None or files.sees(folder, keeper):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, "a trial of pmlm sweep", wait=_WAIT_S):
            yield Place(RunDir(folder))
        return
    if keeps_state:
        raise TrainingError(
            f"this node does not see the sweep's folder {folder.parent.parent}, in which the strategies hyperband and "
            "pbt keep states of their trials: give an output_dir that all nodes share (such as NFS), or take another "
            "strategy"
        )
    home = files.address(keeper, holder := uuid.uuid4().hex[:12], folder)
    kept = files.kept(home)
    deadline = time.monotonic() + _WAIT_S
    while not kept.hold(str(folder), at_once=False):
        if time.monotonic() > deadline:
            raise TrainingError(f"the trial in {folder} is still being worked on by another process after a day")
        time.sleep(_LOOK_S)
    with standin(holder) as disk, _heard_of(kept, folder):
        (disk / folder.name).mkdir()
        place = _Away(RunDir(disk / folder.name, home))
        place.fetch()
        yield place


@contextlib.contextmanager
def _heard_of(kept: files.Kept, folder: Path) -> Iterator[None]:
    """Hold the folder for the time of the block."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE_S / 6):
            with contextlib.suppress(OSError, PmlmError):
                kept.hold(str(folder), at_once=False)

    thread = threading.Thread(target=renew, name="pmlm-hold", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LEASE_S)
        with contextlib.suppress(OSError):
            kept.let_go(str(folder))
