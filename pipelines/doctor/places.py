"""A storage as one machine sees it: a small file written, read, locked, renamed and removed again."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from pmlm_core import storage
from pmlm_core.errors import PmlmError

PATIENCE_S = 5.0  # with a store that fails: who asks the doctor waits for an answer


@dataclass(frozen=True)
class Probe:
    """A file `mark` in `folder` that the driver wrote; `content` is random, so that no other file can pass for it."""

    folder: str
    mark: str
    content: str


@dataclass(frozen=True)
class Touched:
    """What a node made of a probe. `lock` says whether it could take the driver's lock: "held", "free" or "none"."""

    read: bool = False
    wrote: bool = False
    failure: str | None = None
    free: int | None = None
    lock: str | None = None
    file_system: str = ""


@dataclass(frozen=True)
class Seen:
    """What there is at a place: "missing", "file" or "folder", and a digest of names and sizes in it."""

    kind: str
    digest: str = ""
    failure: str | None = None


def mark_of(probe: Probe, name: str = "") -> str:
    """Path of the driver's file or, with a name, of a node's beside it."""
    path = storage.join(probe.folder, probe.mark + (f"-{name}" if name else ""))
    return path if storage.is_remote(path) else storage.absolute(path)


@storage.patient_for(PATIENCE_S)
def touch(probe: Probe, name: str) -> Touched:
    """Read the driver's file and write one beside it; nothing is written where that file is not to be seen."""
    local = not storage.is_remote(probe.folder)
    facts: dict[str, Any] = {}
    try:
        if local and not os.path.isdir(storage.absolute(probe.folder)):
            return Touched(failure="there is no such folder")
        if local:
            facts["free"] = shutil.disk_usage(storage.absolute(probe.folder)).free
            facts["file_system"] = file_system_of(storage.absolute(probe.folder), Path("/proc/self/mounts"))
            if not os.path.exists(mark_of(probe)):
                return Touched(failure="the folder is there, but not the file that was written to it", **facts)
            facts["lock"] = _try_lock(mark_of(probe))
        if storage.read_bytes(mark_of(probe)).decode() != probe.content:
            return Touched(failure="the file that was written there reads otherwise", **facts)
    except (OSError, PmlmError) as error:
        return Touched(failure=str(error), **facts)
    try:
        storage.write_bytes(mark_of(probe, name), (probe.content + name).encode())
    except (OSError, PmlmError) as error:
        return Touched(read=True, failure=str(error), **facts)
    return Touched(read=True, wrote=True, **facts)


@storage.patient_for(PATIENCE_S)
def tidy(probe: Probe, name: str) -> None:
    """Remove the driver's file (no name) or a node's."""
    with contextlib.suppress(OSError, PmlmError):
        storage.remove_file(mark_of(probe, name))


@storage.patient_for(PATIENCE_S)
def look(path: str) -> Seen:
    """What a machine sees at a place that is only read: names and sizes, hidden files left out."""
    try:
        file_system, inside = storage.resolve(path)
        info = file_system.get_file_info(inside)
        if info.type == pafs.FileType.NotFound:
            return Seen("missing")
        if info.type == pafs.FileType.File:
            return Seen("file", str(info.size))
        entries = file_system.get_file_info(pafs.FileSelector(inside))
    except (OSError, PmlmError) as error:
        return Seen("missing", failure=str(error))
    names = sorted(f"{entry.base_name}\0{entry.size}" for entry in entries if not entry.base_name.startswith("."))
    return Seen("folder", hashlib.sha256("\n".join(names).encode()).hexdigest()[:12])


def file_system_of(path: str, mounts: Path) -> str:
    """Kind of the file system that `path` lies in, by the kernel's table of mounts; empty without one."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    real = os.path.realpath(path) + "/"
    points = [(words[1], words[2]) for words in lines if len(words) > 2 and real.startswith(words[1].rstrip("/") + "/")]
    # Of two mounts on one point the later hides the earlier.
    return max(reversed(points), key=lambda point: len(point[0]), default=("", ""))[1]


def _try_lock(path: str) -> str:
    """Whether another's lock on the file is felt here."""
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "none"
    else:
        return "free"
    finally:
        os.close(handle)
