"""A trial's folder on a node that may not see the sweep's: one of its own disk stands in for it.

What the trial was before is fetched when it starts; what comes of it is handed over at every epoch and at its end. For
that time the folder is held (pipelines/handover/keeper.py), as a lock holds it on the machine of the command.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipelines.finetune.rundir import SCORES
from pipelines.finetune.upload import best_in
from pipelines.handover import files, sending
from pipelines.handover.keeper import LEASE_S
from pipelines.handover.serving import sees
from pipelines.handover.standin import standin
from pipelines.lock import locked
from pipelines.run_folder import CHECKPOINTS, RunDir
from pipelines.sweep.trials import ENDINGS
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pipelines.upload import checkpoints
from pmlm_core import storage
from pmlm_core.errors import PmlmError, TrainingError
from pmlm_core.training.checkpoint import Damaged

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
        """Get what training goes on from."""

    def hand_over(self) -> None:
        """Give the driver what has come since the last time.

        Raises:
            OSError: it does not answer, or refuses.
            TrainingError: another process works on the trial now.
        """


class _Away(Place):
    """A folder that stands in for the trial's own."""

    def __init__(self, run: RunDir, home: str) -> None:
        super().__init__(run)
        self._home, self._files = home, sending.Folder(run.path, home, _THE_DRIVERS)
        self.lost, self._ended = threading.Event(), False

    def fetch(self) -> None:
        """Get the files of the trial that lie directly in its folder."""
        for name in storage.names_in(self._home):
            if not name.startswith("."):
                self._get(name)

    def fetch_model(self) -> None:
        for below in storage.folders_in(self._home):
            if below not in _THE_DRIVERS and not below.startswith("."):
                for name in storage.names_in(storage.join(self._home, below)):
                    (self.folder / below).mkdir(exist_ok=True)
                    self._get(f"{below}/{name}")

    def _get(self, name: str) -> None:
        storage.fetch_file(storage.join(self._home, *name.split("/")), self.folder / name)
        self._files.fetched(name)

    def fetch_checkpoints(self, metric: str) -> None:
        needs = partial(best_in, metric=metric)
        try:
            checkpoints.fetch(self.run, self._home, None, lambda text: None, beside=(), needs=needs)
        except Damaged:  # of a trial none is missed: it is trained anew
            storage.remove_folder(storage.join(self._home, CHECKPOINTS))

    def hand_over(self) -> None:
        """Figures first, then the checkpoint after them; then what says that the trial has ended, if it has."""
        if self.lost.is_set():
            raise TrainingError(f"another process works on the trial {self.folder.name} now")
        ends = self._files.is_new(SCORES)
        self._ended = self._ended or ends
        self._files.send(but=ENDINGS)
        if not self._ended:
            checkpoints.mirror(self.run, self._home, 1, lambda text: None, beside=(), best_first=True)
        self._files.send(last=ENDINGS)
        if ends:
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
    if keeper is None or sees(folder, keeper):
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
    with standin(holder) as disk:
        (disk / folder.name).mkdir()
        place = _Away(RunDir(disk / folder.name), home)
        with _heard_of(kept, folder, place.lost):
            place.fetch()
            yield place


@contextlib.contextmanager
def _heard_of(kept: files.Kept, folder: Path, lost: threading.Event) -> Iterator[None]:
    """Keep the folder for the time of the block; `lost` is set if another process has followed."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE_S / 6) and not lost.is_set():
            with contextlib.suppress(OSError, PmlmError):
                if not kept.renew(str(folder)):
                    lost.set()

    thread = threading.Thread(target=renew, name="pmlm-hold", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LEASE_S)
        with contextlib.suppress(OSError):
            kept.let_go(str(folder))
