"""Ctrl-C while a command waits: workers that run are waited for, those that Ray has yet to start are not."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.in_background import run_in_background
from pipelines.leaving import Request, in_a_hurry


class Interrupts:
    """Ctrl-C at the first look, as the main thread meets it."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> None:
        self.looks += 1
        if self.looks == 1:
            raise KeyboardInterrupt


@pytest.fixture
def request_file(tmp_path: Path) -> Request:
    made = Request(tmp_path / "leaving")
    made.prepare()
    return made


def test_workers_that_run_are_asked_to_leave_and_waited_for(request_file: Request):
    left = threading.Event()

    def work() -> None:
        request_file.tell_begun()
        while not request_file.is_asked():
            time.sleep(0.05)
        left.set()

    class OnceBegun(Interrupts):
        def __call__(self) -> None:
            if request_file.has_begun():
                super().__call__()

    with pytest.raises(KeyboardInterrupt):
        run_in_background(work, OnceBegun(), request_file)
    assert left.is_set()


def test_a_second_signal_ends_at_once_and_is_known_as_one(request_file: Request):
    never = threading.Event()
    request_file.tell_begun()

    def interrupt() -> None:
        raise KeyboardInterrupt

    def ends_in_a_hurry(work: Callable[[], None]) -> bool:
        try:
            work()
        except KeyboardInterrupt:
            return in_a_hurry()
        raise AssertionError("it has ended without a signal")

    assert ends_in_a_hurry(lambda: run_in_background(never.wait, interrupt, request_file))
    assert not ends_in_a_hurry(interrupt)
    assert not in_a_hurry()
    never.set()


def test_workers_that_wait_for_machines_are_not_waited_for(request_file: Request):
    never, begun = threading.Event(), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_in_background(never.wait, Interrupts(), request_file)
    assert time.monotonic() - begun < 30  # not the minutes that a checkpoint may take
    assert not request_file.is_asked()
    never.set()
