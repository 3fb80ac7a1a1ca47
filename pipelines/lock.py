"""One process at a time in the folder of a run."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.console import warn
from pmlm_core.errors import ConfigError

FILE_NAME = ".lock"


@contextlib.contextmanager
def locked(
    run_dir: str | os.PathLike[str], command: str, named_by: str = "run_name", wait: float = 0.0
) -> Iterator[None]:
    """Keep others out of `run_dir` while the block runs; a killed process keeps no lock, for the kernel drops it.

    Args:
        command: who holds it, for the message.
        named_by: the option that would name another folder.
        wait: seconds to wait for the other to end.

    Raises:
        ConfigError: another process holds it; the message names it.
    """
    path = Path(run_dir) / FILE_NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror}") from None
    try:
        try:
            _take(handle, wait)
        except BlockingIOError:
            holder = os.pread(handle, 500, 0).decode(errors="replace").strip() or "another process"
            raise ConfigError(
                f"the run in {run_dir} is in use by {holder}: wait until that has ended, or end it, and give the same "
                f"command again; for a run beside it, choose another {named_by}"
            ) from None
        except OSError as error:  # a network file system without locks
            warn(f"{run_dir} cannot be locked ({error.strerror}): see to it that only one command uses it at a time")
        else:
            with contextlib.suppress(OSError):  # a full disk: the lock holds, it only does not say whose it is
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{holder_named(command)}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder_named(command: str) -> str:
    """This process as a holder, for those who are kept out."""
    return f"{command} (process {os.getpid()} on {socket.gethostname()})"


def _take(handle: int, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
