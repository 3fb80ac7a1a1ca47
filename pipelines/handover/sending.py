"""Files that grow, and folders, sent from a worker's disk to the driver's folder."""

import os
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from pipelines.handover.files import kept
from pipelines.run_folder import CHECKPOINTS, EVENTS_FILE, RUN_FILE, whole_lines
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pmlm_core import storage
from pmlm_core.addresses import path_in

OTHERWISE = frozenset({CHECKPOINTS, "ray", EVENTS_FILE, RUN_FILE, JOURNAL, MLFLOW_RECORD})
"""Of a run's folder, what is sent as it grows, or is the driver's own."""


class Lines:
    """A file of lines to which others add as well."""

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target, self._sent = path, target, 0
        self._name = uuid.uuid4().hex

    def send(self) -> None:
        """Add the lines that are new here to the driver's file."""
        with suppress(FileNotFoundError):
            with self._path.open("rb") as file:
                file.seek(self._sent)
                data = whole_lines(file.read())
            if data:
                kept(self._target).insist(
                    "append", path_in(self._target), data, f"{self._name}-{self._sent}-{len(data)}"
                )
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
                data = whole_lines(file.read())
                place = kept(self._target)
                if not data:
                    return
                if place.insist("extend", path_in(self._target), self._known[1], data, place.holder):
                    self._known = (inode, self._known[1] + len(data))
                    return
                file.seek(0)  # half of it came, of a call whose answer was lost
            whole = whole_lines(file.read())
            storage.write_bytes(self._target, whole)
            self._known = (inode, len(whole))


def create(path: Path, target: str) -> None:
    """Give the driver a small file, unless there is one."""
    kept(target).insist("create", path_in(target), path.read_bytes())


class Folder:
    """A folder whose files go to the driver as they change."""

    def __init__(self, folder: Path, home: str, otherwise: Collection[str] = OTHERWISE) -> None:
        """
        Args:
            otherwise: names in the folder that are not sent here.
        """
        self._folder, self._home, self._otherwise = folder, home, otherwise
        self._known: dict[str, tuple[int, int]] = {}

    def fetched(self, name: str) -> None:
        """A file is as the driver has it."""
        self._known[name] = _signature(self._folder / name)

    def is_new(self, name: str) -> bool:
        """Whether there is such a file, written here since."""
        path = self._folder / name
        return path.is_file() and self._known.get(name) != _signature(path)

    def send(self, *, last: Collection[str] = (), but: Collection[str] = ()) -> None:
        """Give the driver what is new, `last` when all else is there, nothing of what is in `but`."""
        found = (
            path.relative_to(self._folder).as_posix() for path in sorted(self._folder.rglob("*")) if path.is_file()
        )
        for name in sorted(found, key=lambda name: name in last):
            first = name.partition("/")[0]
            if first in self._otherwise or first in but or first.startswith((".", "leaving-", "failure-")):
                continue
            with suppress(FileNotFoundError):  # replaced at this moment: the next time
                now = _signature(self._folder / name)
                if self._known.get(name) != now:
                    storage.copy_file(self._folder / name, storage.join(self._home, name))
                    self._known[name] = now


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
