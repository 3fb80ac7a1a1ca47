"""One command at a time on a run's place in upload_dir: machines with disks of their own do not see each other's locks.

    UPLOAD_DIR/RUN/in_use.json     who uses it, and a word that changes every minute while that command lives

No clocks are compared: whoever meets another's note watches whether the word changes. The note goes when its command
ends; one that stays was left by a kill, and is no bar to commands with the same run folder (of which others are kept
out by its lock; a copy of it is another), nor on the machine where its process is seen to be gone.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from pipelines.console import warn
from pipelines.lock import holder_named
from pipelines.run_folder import RunDir
from pipelines.tracking.redact import redact
from pmlm_core import storage
from pmlm_core.errors import ConfigError, DataError

NOTE = "in_use.json"
_RENEW_S, _LOST_S, _LOOK_S, _RELEASE_S = 60.0, 300.0, 5.0, 5.0
_DRAFT = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")  # as pmlm_core.storage names what becomes a file of a folder
_held: set[str] = set()  # where this process has put a note


def take(run: RunDir, home: str, command: str, say: Callable[[str], None]) -> None:
    """Note in `home` that this run folder's command uses it; where another's has, wait until that is surely dead.

    Args:
        command: which, as "pmlm pretrain".

    Raises:
        ConfigError: it lives.
        OSError, DataError: the store cannot be reached, or refuses.
    """
    first, begun = _living(run, home), time.monotonic()
    if first is not None:
        say(
            f"warning: {redact(home)} is in use by {first['by']}, or was when that was killed: waiting for up to "
            f"{_LOST_S / 60:g} minutes to see which; if you know that it has ended, delete "
            f"{redact(storage.join(home, NOTE))}"
        )
    while first is not None and time.monotonic() - begun < _LOST_S and (there := _living(run, home)) is not None:
        if there != first:
            raise ConfigError(
                f"{redact(home)} is in use by {there['by']}, which works on the same run in another folder: end it and "
                "give the same command again; for a run beside it, choose another run_name"
            )
        time.sleep(_LOOK_S)
    _tidy(home)
    _write(run, home, command)


def _tidy(home: str) -> None:
    """Remove what commands that were killed have left half copied in a folder; a store has no such names."""
    if not storage.is_remote(home):
        for path in Path(storage.absolute(home)).rglob(".*.tmp"):
            if _DRAFT.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def kept(run: RunDir, home: str, command: str) -> Iterator[None]:
    """Renew the note while the block runs, and remove it at the end."""
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(run, home, command, ended), name="pmlm-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_RELEASE_S)
        with contextlib.suppress(OSError, DataError), storage.patient_for(_RELEASE_S):
            # A thread that is still at a slow store would write the note anew after it was removed.
            if not thread.is_alive() and _of_another(run, home) is None:
                storage.remove_file(storage.join(home, NOTE))
        _held.discard(home)


def _renew(run: RunDir, home: str, command: str, ended: threading.Event) -> None:
    seen: dict[str, object] | None = None
    while not ended.wait(_RENEW_S):
        with contextlib.suppress(OSError, DataError), storage.patient_for(_RENEW_S / 4):  # uploads say if it is away
            there = _of_another(run, home)
            if there is None:
                _write(run, home, command)
            elif home in _held or (seen is not None and there != seen):  # a word that changes: its command lives
                warn(f"{redact(home)} is in use by {there['by']} too: both commands upload there; end one of them")
                return
            seen = there


def _of_another(run: RunDir, home: str) -> dict[str, object] | None:
    """The note there, unless it is this run folder's own or none."""
    if NOTE not in storage.names_in(home):
        return None
    with contextlib.suppress(DataError, ValueError, TypeError, KeyError):  # removed at this moment, or no such note
        there = json.loads(storage.read_bytes(storage.join(home, NOTE)))
        if there["run_folder"] != _made(run) and there["by"]:
            return there
    return None


def _write(run: RunDir, home: str, command: str) -> None:
    note = {
        "by": holder_named(command),
        "run_folder": _made(run),
        "word": uuid.uuid4().hex,
        "pid": os.getpid(),
        "pids_of": _pids_of(),
    }
    storage.write_bytes(storage.join(home, NOTE), json.dumps(note).encode())
    _held.add(home)


def _living(run: RunDir, home: str) -> dict[str, object] | None:
    """The note there, unless its process was one of this machine and is no more."""
    there = _of_another(run, home)
    return None if there is None or _has_ended(there) else there


def _has_ended(note: dict[str, object]) -> bool:
    """Whether a note's process is seen to be gone; False where that cannot be told."""
    pid = note.get("pid")
    if not isinstance(pid, int) or not _pids_of() or note.get("pids_of") != _pids_of():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _pids_of() -> str:
    """Where a process has its number: this machine since its start and, for containers, this namespace; "" if unknown.

    The name too: machines restored from one snapshot of memory have their start in common.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


@cache  # for the time of change is another after a `chmod` or a hard link
def _made(run: RunDir) -> list[float]:
    """When a run folder was made, and which file says so: what tells it from others.

    No copy has that file's number and time of change; the same folder has, seen from another machine of a network file
    system or after a restart.
    """
    status = run.record.stat()
    started = json.loads(run.record.read_text(encoding="utf-8")).get("started", 0.0)
    return [started, status.st_ino, status.st_ctime_ns]
