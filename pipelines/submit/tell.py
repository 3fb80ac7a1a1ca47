"""What the user reads about jobs."""

import shlex
import time
from typing import Any

from pipelines.console import next_command, say, warn
from pipelines.quantities import duration
from pipelines.submit.runs import runs_of
from pipelines.tracking.redact import redact

_LAST_LINES = 8
"""How much of a failed job's log is shown with its state."""


def show_list(jobs: list[Any], address: str | None) -> None:
    """One line a job, the newest first."""
    jobs = sorted((job for job in jobs if job.submission_id), key=lambda job: job.start_time or 0, reverse=True)
    if not jobs:
        say("the cluster knows no jobs")
        return
    width = max(len(job.submission_id) for job in jobs)
    for job in jobs:
        say(f"{job.submission_id:<{width}}  {job.status!s:<9}  {_when(job):<28}  {redact(job.entrypoint)}")
    say_next(address, f"--status {jobs[0].submission_id}")


def show_status(info: Any, job: str, tracking_uri: str | None, address: str | None) -> None:
    """State, command and runs of one job."""
    say(f"job {job}: {info.status}, {_when(info)}")
    say(f"  {redact(info.entrypoint)}")
    if str(info.status) in ("PENDING", "FAILED") and info.message:
        first, *log = redact(info.message).splitlines()
        for line in (first, *log[-_LAST_LINES:]):
            say(f"  {line}")
    runs = runs_of(job, info.metadata or {}, tracking_uri)
    for line in runs.lines:
        say(f"  {line}")
    if runs.failure:
        say(f"  {runs.failure}")
    if str(info.status) in ("FAILED", "STOPPED"):
        say_next(address, f"-- {_inner(info)}   (the same command goes on)")
    else:
        say_next(address, f"--logs {job}")


def show_end(info: Any, job: str, address: str | None) -> int:
    """Say how a followed job ended; the exit code that tells it."""
    status = str(info.status)
    if status == "SUCCEEDED":
        say(f"job {job} succeeded, {_when(info)}")
        say_next(address, f"--status {job}")
        return 0
    code = info.driver_exit_code
    if status == "STOPPED":
        warn(f"job {job} was stopped")
    elif code is None:
        warn(f"job {job} was lost ({_first_line(info)})")
    else:
        warn(f"job {job} failed with exit code {code}")
    say("what it has finished is kept; the same command goes on from there")
    say_next(address, f"-- {_inner(info)}")
    return 1 if not code else 128 - code if code < 0 else code


def say_next(address: str | None, rest: str) -> None:
    """Say the next `pmlm submit`, to the cluster that this one was told of by --address."""
    next_command(f"pmlm submit {f'--address {redact(address)} ' if address else ''}{rest}")


def _inner(info: Any) -> str:
    return redact(info.entrypoint).removeprefix("pmlm ")


def _first_line(info: Any) -> str:
    return redact((info.message or str(info.error_type)).splitlines()[0])[:300]


def _when(info: Any) -> str:
    if not info.start_time:
        return "not started"
    seconds = (info.end_time / 1000 if info.end_time else time.time()) - info.start_time / 1000
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.start_time / 1000))
    return f"from {begun}, {'' if info.end_time else 'so far '}{duration(seconds)}"


def command_line(words: list[str]) -> str:
    """The command as a shell takes it."""
    return shlex.join(["pmlm", *words])
