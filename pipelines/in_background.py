"""The wait of a command for its workers, in which Ctrl-C and SIGTERM become a request to leave after a checkpoint."""

import math
import os
import threading
import time
from collections.abc import Callable

from pipelines.console import say, warn
from pipelines.leaving import GRACE_S, Request

_RAY_ENDS_S = 3.0
"""How long its workers outlast a Ray that was told to end."""


def run_in_background(work: Callable[[], object], meanwhile: Callable[[], None], request: Request) -> None:
    """Call `work` outside the main thread, where Ray would put its own handler on Ctrl-C and keep it there."""
    met: list[BaseException] = []
    done = threading.Event()  # a thread whose `join` a signal has interrupted counts as ended, in Python 3.11

    def call() -> None:
        try:
            work()
        except BaseException as error:
            met.append(error)
        finally:
            done.set()

    threading.Thread(target=call, name="pmlm-fit", daemon=True).start()
    stopped: KeyboardInterrupt | None = None
    until = math.inf
    while True:
        try:
            while not done.is_set() and time.monotonic() < until:
                done.wait(timeout=0.5)
                if stopped is not None and _ray_is_ending():
                    until = min(until, time.monotonic() + _RAY_ENDS_S)
                meanwhile()
            break
        except KeyboardInterrupt as signal:
            if stopped is not None or not request.has_begun():
                raise signal from stopped
            try:
                request.ask()
            except OSError:
                raise signal from None
            stopped, until = signal, time.monotonic() + GRACE_S
            say("ending: the workers write a checkpoint of their next step (a second signal ends at once)")
    if stopped is not None:
        if met or not done.is_set():
            warn("the workers did not end in good order; the newest checkpoint that is whole holds")
        raise stopped
    if met:
        raise met[0]


def _ray_is_ending() -> bool:
    """Whether a process of a Ray that this one has started is gone: SIGTERM went to all processes of the machine."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # the Ray of a cluster
        return False
