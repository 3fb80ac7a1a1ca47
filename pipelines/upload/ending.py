"""The end of a process whose uploads nobody waits for any more. It imports nothing heavy: every command ends here."""

import contextlib
import os
import sys
import threading
from typing import NoReturn

UPLOADING = "pmlm-upload"
"""Threads that upload bear this name."""


def end(code: int) -> NoReturn:
    """End the process with this exit code, at once where an upload is still under way.

    An interpreter in good order waits for every pool of threads, and pyarrow for all that it is sending: a slow store
    would keep the process alive for as long as it takes, after the lock of its run has gone.
    """
    if not any(thread.name == UPLOADING for thread in threading.enumerate()):
        raise SystemExit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed: whom it told has gone
            stream.flush()
    os._exit(code)
