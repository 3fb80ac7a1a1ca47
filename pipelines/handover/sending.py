"""Files that grow, and folders, sent from a worker's disk to the driver's folder."""

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from pipelines.handover.files import kept, path_in
from pipelines.run_folder import CHECKPOINTS, EVENTS_FILE, RUN_FILE
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pmlm_core import storage

OTHERWISE = frozenset({CHECKPOINTS, "ray", EVENTS_FILE, RUN_FILE, JOURNAL, MLFLOW_RECORD})
"""Of a run's folder, what is sent as it grows, or is the driver's own."""


class Lines:
    """A file of lines to which others add as well."""

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target, self._sent = path, target, 0

    def send(self) -> None:
        """Add the lines that are new here to the driver's file."""
        with suppress(FileNotFoundError):
            with self._path.open("rb") as file:
                file.seek(self._sent)
                data = file.read()
            if data := data[: data.rfind(b"\n") + 1]:
                kept(self._target).ask("append", path_in(self._target), data)
                self._sent += len(data)

    def skip(self, write: Callable[[], None]) -> None:
        """Let `write` add what is not to be sent."""
        self.send()
        write()
        self._sent = self._path.stat().st_size


class Journal:
    """The journal, which one worker writes and may write anew."""

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target = path, target
        self._known: tuple[int, int] | None = None  # inode, bytes sent

    def sent_so_far(self) -> None:
        """What is here is what the driver has."""
        with suppress(FileNotFoundError):
            status = self._path.stat()
            self._known = (status.st_ino, status.st_size)

    def send(self) -> None:
        """Make the driver's journal what this one is."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if self._known is not None and self._known[0] == inode:
                file.seek(self._known[1])
                data = file.read()
                data = data[: data.rfind(b"\n") + 1]
                place = kept(self._target)
                if not data:
                    return
                if place.ask("extend", path_in(self._target), self._known[1], data, place.holder):
                    self._known = (inode, self._known[1] + len(data))
                    return
                file.seek(0)  # half of it came, of a call whose answer was lost
            whole = file.read()
            whole = whole[: whole.rfind(b"\n") + 1]
            storage.write_bytes(self._target, whole)
            self._known = (inode, len(whole))


def create(path: Path, target: str) -> None:
    """Give the driver a small file, unless there is one."""
    if storage.size(target) is None:
        storage.write_bytes(target, path.read_bytes())


def send_files(folder: Path, home: str, *, last: Collection[str] = (), otherwise: Collection[str] = OTHERWISE) -> None:
    """Give the driver the files of a folder and those below it, `last` when all others are there.

    Args:
        otherwise: names in the folder that are not sent here.
    """
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in found}
    for name in sorted(names, key=lambda name: name in last):
        first = name.partition("/")[0]
        if first not in otherwise and not first.startswith((".", "leaving-", "failure-")):
            storage.copy_file(names[name], storage.join(home, name))
