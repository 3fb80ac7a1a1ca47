"""Who started whom on this machine, from /proc; and ending what was started."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PMLM = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom pipelines.cli import main\nmain()"
"""A program for `python -c`: pmlm, heeding Ctrl-C also in the background of a shell, which ignores it there."""


def parent_of(pid: int) -> int:
    """The process that started `pid` or has taken it over; 0 above the first one, or if there is no such process."""
    try:
        return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def above(pid: int) -> list[int]:
    """Parent, parent's parent, and so on."""
    found = []
    while pid := parent_of(pid):
        found.append(pid)
    return found


def below(pid: int) -> list[int]:
    """All processes that descend from `pid`."""
    running = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    return [each for each in running if pid in above(each)]


def naming(word: str) -> list[int]:
    """Processes with this word on their command line."""
    found = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if each.name.isdigit() and word in (each / "cmdline").read_text().split("\0"):
                found.append(int(each.name))
    return found


def listening(pids: list[int]) -> set[str]:
    """Addresses at which the processes wait for connections, as /proc/net/tcp and tcp6 write them, without the port."""
    theirs = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            theirs |= {os.readlink(each) for each in (Path("/proc") / str(pid) / "fd").iterdir()}
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    return {each[1].partition(":")[0] for each in lines if each[3] == "0A" and f"socket:[{each[9]}]" in theirs}


def send(how: signal.Signals, pids: list[int]) -> None:
    """Send a signal to each of the processes; to stop, go on or end them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has left
            os.kill(pid, how)


def wait_until(come_true: Callable[[], T], command: "subprocess.Popen[Any]", log: Path) -> T:
    """Wait for something true from `come_true`, and return it; AssertionError if the command ends or in 5 minutes."""
    deadline = time.monotonic() + 300
    while not (found := come_true()):
        assert command.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return found


def wait_until_gone(pids: list[int], seconds: float = 30) -> None:
    """Wait until none of the processes runs; AssertionError if one still does after `seconds`."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, f"still running after {seconds} s: {left}"
        time.sleep(0.1)


def end(command: "subprocess.Popen[Any]", how: signal.Signals, said: Callable[[], str], seconds: float) -> None:
    """End a command by SIGKILL to its session, or by SIGTERM: within `seconds`, with all that it started, Ray too."""
    if how == signal.SIGKILL:
        os.killpg(command.pid, how)
        command.wait()
        return
    started = below(command.pid)
    command.send_signal(how)
    assert command.wait(timeout=seconds) == 143, said()
    wait_until_gone(started)


def _runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
