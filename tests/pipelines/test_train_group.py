"""What a worker writes down for the driver, also where the disk is full; without Ray."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from pipelines.run_folder import Events, RunDir
from pipelines.train_group import Group, _raise_failure, fit, release
from pipelines.train_worker import _write_failure
from pmlm_core.errors import DataError, NotFinite, TrainingError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the tests


def group(folder: Path) -> Group:
    return Group(RunDir(folder), "test", 1, 1, False, max_failures=0)


@contextmanager
def no_room() -> Iterator[None]:
    """Writing any byte of a file fails, as on a full disk; making an empty one does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_first_error_is_raised_again_by_the_driver(tmp_path: Path):
    failure = group(tmp_path).run.failure_of("test")
    _raise_failure(group(tmp_path))
    assert _write_failure(failure, DataError("row 7 is odd"))
    assert _write_failure(failure, TrainingError("another worker's"))
    with pytest.raises(DataError, match="row 7 is odd"):
        _raise_failure(group(tmp_path))
    assert not failure.exists()


def test_a_loss_that_is_not_finite_is_known_as_such_to_the_driver(tmp_path: Path):
    assert _write_failure(group(tmp_path).run.failure_of("test"), NotFinite("the loss is nan"))
    with pytest.raises(NotFinite, match="the loss is nan"):
        _raise_failure(group(tmp_path))


def test_on_a_full_disk_nothing_half_written_is_left(tmp_path: Path):
    failure = group(tmp_path).run.failure_of("test")
    with no_room():
        assert not _write_failure(failure, DataError("row 7 is odd"))
    assert not failure.exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_an_error_that_cannot_be_read_is_said_in_a_sentence(tmp_path: Path, content: str):
    failure = group(tmp_path).run.failure_of("test")
    failure.write_text(content)
    with pytest.raises(TrainingError, match=r"could not be told.*disk full.*The same command goes on"):
        _raise_failure(group(tmp_path))
    assert not failure.exists()


@pytest.mark.usefixtures("ray_session")
def test_what_workers_of_an_ended_process_hold_is_given_back(tmp_path: Path):
    import ray
    from ray.util.placement_group import placement_group

    run = RunDir(tmp_path)
    held = placement_group([{"CPU": 1}, {"CPU": 1}], lifetime="detached")
    assert held.wait(60)
    before = ray.available_resources().get("CPU", 0)
    Events(run).add("worker", rank=0)  # of a run before groups were written down
    Events(run).add("worker", rank=1, placement_group="ab" * 18)  # of a Ray that has ended
    Events(run).add("worker", rank=0, placement_group=held.id.hex())
    release(run)
    release(run)
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < before + 2:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)


def worker_that_gets_on(told: dict[str, Any]) -> None:
    """Fails, and before that makes a checkpoint's folder, as often as it was told to."""
    run: RunDir = told["run"]
    with (run.path / "starts").open("a") as file:
        file.write("x")
    starts = len((run.path / "starts").read_text())
    if starts <= told["gets_on"]:
        (run.checkpoints / f"step-{starts:08d}").mkdir(parents=True)
    if starts <= told["fails"]:
        raise RuntimeError(f"lost at start {starts}")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("gets_on", "starts"), [(3, 4), (1, 4), (0, 2)])
def test_a_group_is_given_up_only_if_it_does_not_get_on(tmp_path: Path, gets_on: int, starts: int):
    of = Group(RunDir(tmp_path), "test", 1, 1, False, max_failures=1)
    told = {"run": of.run, "fails": 3 if gets_on == 3 else 9, "gets_on": gets_on}
    if gets_on == 3:
        fit(of, worker_that_gets_on, told)
    else:
        with pytest.raises(TrainingError, match=f"RuntimeError: lost at start {starts}"):
            fit(of, worker_that_gets_on, told)
    assert len((tmp_path / "starts").read_text()) == starts
