"""Folders in which nothing is trained any more, copied to a store as they are, and fetched where the disk was lost.

HOME/
    model/..., predictions/..., scores.json, ...     the folder's files, under their own names
    finished.json                                    their sizes and SHA-256, written last: without it, or with
                                                     other files than it says, the folder was not copied whole
"""

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pipelines.console import warn
from pipelines.run_folder import CHECKPOINTS, EVENTS_FILE
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pipelines.upload.background import check_wanted, not_all_there
from pmlm_core import storage
from pmlm_core.inside import leads_outside
from pmlm_core.training import checkpoint

MANIFEST = "finished.json"
_NOT_COPIED = frozenset({CHECKPOINTS, "ray", EVENTS_FILE})
_BESIDE = (JOURNAL, MLFLOW_RECORD)
_SMALL = 8 << 20
_ATTEMPTS = 3
_Signature = dict[str, tuple[int, int]]
T = TypeVar("T")


class Finished:
    """Sends folders, and remembers which it has sent: asking the store again costs a request each."""

    def __init__(self) -> None:
        self._sent: dict[str, _Signature] = {}
        self._told: set[Path] = set()
        self._unsettled: dict[str, set[str]] = {}  # files copied since the last manifest, which may not tell of them

    def send(self, folder: Path, home: str, *, below: bool = True) -> bool:
        """Make `home` hold the files of `folder` as they are now; whether there was anything to copy.

        A file is left out, aloud, whose name would be refused when it is fetched, and all others with it.

        Args:
            below: files of its sub-folders too.

        Raises:
            OSError, DataError: the store cannot be reached, or refuses.
            GivenUp: nobody waits for this any more.
        """
        for _ in range(_ATTEMPTS):
            now = self._signature(folder, below)
            if self._sent.get(home) == now:
                return False
            with contextlib.suppress(FileNotFoundError):  # one was removed meanwhile
                if (changed := self._sent_as(now, folder, home, below)) is not None:
                    self._sent[home] = now
                    return changed
        not_all_there()  # it goes on changing: the next call gets it
        return False

    def _sent_as(self, now: _Signature, folder: Path, home: str, below: bool) -> bool | None:
        """Whether there was anything to copy; None if the folder has changed meanwhile."""
        there, unsettled = manifest_in(home) or {}, self._unsettled.setdefault(home, set())
        known: dict[str, Any] = {**there.get("files", {}), **there.get("beside", {})}
        files = {name: _facts(folder / name) for name in now}
        changed = [name for name in files if known.get(name) != files[name] or name in unsettled]
        # New names first: what replaces a file makes the old manifest untrue, until the new one is there.
        for name in sorted(changed, key=lambda name: name in known):
            check_wanted()
            unsettled.add(name)
            _copy(folder / name, storage.join(home, name))
        if _settled(self._signature(folder, below)) != _settled(now):
            return None
        check_wanted()
        if known != files:
            content = {
                "format_version": checkpoint.FORMAT_VERSION,
                "files": _settled(files),
                "beside": {name: files[name] for name in files if name in _BESIDE},
            }
            storage.write_bytes(storage.join(home, MANIFEST), (json.dumps(content, indent=1) + "\n").encode())
        for name in known.keys() - files.keys():
            storage.remove_file(storage.join(home, name))
        unsettled.clear()
        return known != files

    def _signature(self, folder: Path, below: bool) -> _Signature:
        """Names of the files to be copied, with size and time of the last change."""
        found = {}
        for path in _files(folder, below):
            name = path.relative_to(folder).as_posix()
            if leads_outside([name]) is not None:
                self._tell_left_out(path)
                continue
            with contextlib.suppress(FileNotFoundError):  # a draft, renamed meanwhile
                status = path.stat()
                found[name] = (status.st_size, status.st_mtime_ns)
        return found

    def _tell_left_out(self, path: Path) -> None:
        if path not in self._told:
            self._told.add(path)
            warn(
                f"{str(path)!r} is not uploaded, for a file of that name would be refused when it is fetched: name it "
                "with letters, digits, spaces and ._+=@- only, and the next upload takes it"
            )


def _settled(files: dict[str, T]) -> dict[str, T]:
    return {name: each for name, each in files.items() if name not in _BESIDE}


def is_there(home: str) -> bool:
    """Whether a folder was copied to `home`; `take` says whether it is whole.

    Raises:
        OSError, DataError: the store cannot be reached, or refuses.
    """
    return MANIFEST in storage.names_in(home)


def manifest_in(home: str) -> dict[str, Any] | None:
    """What `home` says that it holds; None if it says nothing, or what cannot be.

    Raises:
        OSError, DataError: the store cannot be reached, or refuses.
    """
    if not is_there(home):
        return None
    with contextlib.suppress(ValueError, TypeError, KeyError):  # torn: not whole
        told = json.loads(storage.read_bytes(storage.join(home, MANIFEST)))
        if leads_outside([*told["files"], *told["beside"]]) is None:
            return {name: dict(told[name]) for name in ("files", "beside")}
    return None


def take(home: str, folder: Path, last: Collection[str]) -> str | None:
    """Fetch what was copied to `home`; returns what is wrong with it, or None and it is in its place.

    Args:
        last: files that say that the folder is finished, put in their place when all others are.

    Raises:
        OSError, DataError: the store cannot be reached, or refuses.
    """
    draft = folder / f".fetching-{os.getpid()}"
    for left in folder.glob(".fetching-*"):
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        storage.fetch_file(storage.join(home, MANIFEST), draft / MANIFEST)
        told = checkpoint.read_manifest(draft, MANIFEST)
        files, beside = told["files"], [name for name in _BESIDE if name in told.get("beside", ())]
        for name in (*files, *beside):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # `damage_of` says so
                storage.fetch_file(storage.join(home, name), draft / name)
        if reason := checkpoint.damage_of(draft, files):
            raise checkpoint.Damaged(reason)
        there = [name for name in (*files, *beside) if (draft / name).exists()]
        for name in sorted(there, key=lambda name: name in last):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).replace(folder / name)
    except checkpoint.Damaged as error:
        storage.remove_file(storage.join(home, MANIFEST))  # else it would count as copied when it is made again
        return str(error)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return None


def _files(folder: Path, below: bool) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _NOT_COPIED or path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif below and path.is_dir():
            yield from (each for each in sorted(path.rglob("*")) if each.is_file() and not each.name.startswith("."))


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": checkpoint.sha256(path)}


def _copy(path: Path, target: str) -> None:
    if path.stat().st_size <= _SMALL:
        storage.write_bytes(target, path.read_bytes())  # not mapped: it may be cut
    else:
        storage.copy_file(path, target)
