"""Joining a Ray that may be away, in a time that is known beforehand."""

import os
import socket
import subprocess
import sys

from pipelines import cluster
from pipelines.tracking.patience import Attempt
from pipelines.tracking.redact import in_brief
from pmlm_core.errors import ConfigError

_TRIAL = """
import logging, sys, ray
try:
    ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)
except BaseException as error:
    sys.exit("FAILED " + " ".join(f"{type(error).__name__}: {error}".split()))
ray.shutdown()
"""


def join(timeout: float) -> str | None:
    """Connect to Ray as every stage does, or say why that failed.

    Args:
        timeout: seconds, for joining one; starting one on this machine ends by itself (`cluster.connect`).
    """
    address = os.environ.get("RAY_ADDRESS")
    if address and (fault := address_fault(address, timeout) or trial_fault(address, timeout)):
        return fault
    if not address:
        # Not in a thread: the kernel ends processes that Ray has started when the thread that started them ends.
        try:
            cluster.connect()
        except ConfigError as error:
            return str(error)
        return None
    attempt = Attempt(lambda: cluster.connect(), timeout, "doctor-join")
    return attempt.failure and attempt.failure.removeprefix("ConfigError: ")


def address_fault(address: str, timeout: float) -> str | None:
    """Why RAY_ADDRESS cannot be joined, as far as a look from outside tells; None if nothing speaks against it.

    Ray itself would try for a minute and print warnings of its own.
    """
    if address.startswith(("http://", "https://")):
        return "that is the dashboard's, for `ray job submit`; a command needs the head's HOST:6379, or auto"
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return None  # "auto", "local", a provider's name
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except OSError as error:
        return f"no connection to {host}:{port}: {error.strerror or error}"
    return None


def trial_fault(address: str, timeout: float) -> str | None:
    """Join in a process of its own: where only half of a Ray is there, it hangs, or ends its process without a word."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, address], capture_output=True, text=True, timeout=max(timeout, 10.0)
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {max(timeout, 10.0):.0f} s"
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.splitlines() if line.startswith("FAILED ")]
    if said:
        return in_brief(said[-1].removeprefix("FAILED "))
    first = next((line for line in done.stderr.splitlines() if "ailed" in line), f"exit code {done.returncode}")
    return f"Ray ends the process that joins it ({in_brief(first)}); is it a Ray that has ended, or another user's?"


def leave(timeout: float) -> None:
    """Disconnect, and end a Ray that was started here."""
    import ray

    Attempt(ray.shutdown, timeout, "doctor-leave")
