"""The driver's side of a look at a storage: a file that all nodes have to see, and what was made for it."""

import contextlib
import fcntl
import os
import shutil
import uuid
from pathlib import Path

from pipelines.doctor.places import PATIENCE_S, Probe, mark_of, tidy
from pmlm_core import storage
from pmlm_core.errors import PmlmError


class Planted:
    """The driver's side of a probe: made, held locked, and removed with every folder that was made for it."""

    @storage.patient_for(PATIENCE_S)
    def __init__(self, folder: str) -> None:
        """Make the folder and write the probe.

        Raises:
            OSError, PmlmError: it cannot be written to.
        """
        self.probe = Probe(folder, f".pmlm-doctor-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex)
        self._made = [] if storage.is_remote(folder) else _missing(folder)
        self._handle: int | None = None
        try:
            storage.write_bytes(mark_of(self.probe), self.probe.content.encode())
            if not storage.is_remote(folder):
                self._handle = os.open(mark_of(self.probe), os.O_RDWR)
                with contextlib.suppress(OSError):  # no locks here: the nodes will tell
                    fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.remove([])
            raise

    @storage.patient_for(PATIENCE_S)
    def answered(self, name: str) -> bool:
        """Whether the driver sees what the node `name` wrote."""
        try:
            return storage.read_bytes(mark_of(self.probe, name)).decode() == self.probe.content + name
        except (OSError, PmlmError):
            return False

    def rename_failure(self) -> str | None:
        """Why a folder, as a checkpoint is one, cannot be renamed into place here; None if it can."""
        draft = Path(mark_of(self.probe, "draft"))
        final = Path(mark_of(self.probe, "folder"))
        try:
            draft.mkdir()
            (draft / "file").write_text(self.probe.content)
            draft.rename(final)
            if (final / "file").read_text() != self.probe.content or draft.exists():
                return "the renamed folder does not hold what was written"
        except OSError as error:
            return error.strerror or str(error)
        finally:
            for folder in (draft, final):
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def remove(self, names: list[str]) -> None:
        """Remove the probe, what the nodes `names` wrote, and the folders that were made."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        for name in ("", *names):
            tidy(self.probe, name)
        for folder in self._made:
            with contextlib.suppress(OSError):  # somebody else has begun to use it
                os.rmdir(folder)


def _missing(folder: str) -> list[str]:
    """Folders that have to be made for this one, the innermost first."""
    missing, path = [], storage.absolute(folder)
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing
