"""SIGTERM while Ray starts, whose handler then is Ray's, is told from an end of another kind."""

import signal
import sys

import pytest

from pipelines.leaving import Terminated, heed_sigterm, own_sigterm


@pytest.fixture(autouse=True)
def _as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_while_ray_has_its_own_handler_is_a_termination_and_ours_comes_back():
    heed_sigterm()
    ours = signal.getsignal(signal.SIGTERM)

    def start() -> None:
        with own_sigterm():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as `ray.init` does
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Terminated):
        start()
    assert signal.getsignal(signal.SIGTERM) is ours


def test_another_exit_stays_what_it_is():
    heed_sigterm()
    with pytest.raises(SystemExit, match="3"), own_sigterm():
        sys.exit(3)
