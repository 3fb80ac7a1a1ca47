"""What is done once a benchmark has its result: closed in MLflow as it ends, registered once, killed only if it was."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sweeping_data import make_sweep

from pipelines.finetune.rundir import open_record, write_json
from pipelines.sweep import benchmark_sweep, ending
from pipelines.sweep import run as stage
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import RESULT, Course, courses
from pipelines.sweep.upload import News
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink
from pmlm_core.errors import TrainingError

WINNER = "abc-seed-1"


def courses_of(folder: Path, tokenizer_dir: str, *names: str, **options: Any) -> list[Course]:
    """Courses of that many benchmarks, begun."""
    made = make_sweep(folder, tokenizer_dir, **options)
    text = (folder / "reviews.py").read_text()
    for name in names:
        (folder / f"{name}.py").write_text(text.replace('name="reviews"', f'name="{name}"'))
    config = SweepConfig(**{**made, "benchmark": [str(folder / f"{name}.py") for name in names]})
    found, _ = courses(config)
    for course in found:
        open_record(course.run, course.identity(), {"source": course.job.source.described()})
    return found


def ended(course: Course, *, model: bool = True) -> dict[str, Any]:
    """The result of a sweep whose winner is in MLflow."""
    trial = course.trials / WINNER
    sink = MlflowSink(trial, course.config.tracking_uri, f"pmlm-{course.benchmark.name}", WINNER)
    assert sink.finish("FINISHED", 60)
    if model:
        write_json(trial / "model" / "config.json", {})
    won = {"trial": WINNER, "mean": 60.0, "stdev": 0.0, "seeds": {"1": 60.0}, "params": {}}
    result = {"complete": True, "benchmark": course.benchmark.name, "metric": "accuracy", "split": "dev"}
    result |= {"winner": won, "configurations": [{"seeds": {"1": 60.0}}]}
    write_json(course.run.path / RESULT, result)
    return result


def run_of(course: Course) -> Any:
    record = Record.load(course.run.path)
    assert record is not None
    return MlflowClient(course.config.tracking_uri).get_run(str(record.run_id))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names under which winners were registered."""
    names: list[str] = []

    def register(run_dir: Path, checkpoint: Path, name: str, uri: str | None, alias: str) -> None:
        record = Record.load(run_dir)
        assert record is not None
        record.registered = {"name": name, "checkpoint": str(checkpoint), "model": f"{name} version 1"}
        record.save(run_dir)
        names.append(name)

    monkeypatch.setattr(ending, "register", register)
    return names


def test_a_signal_kills_only_benchmarks_without_a_result(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch, registered: list[str]
):
    found = courses_of(tmp_path, sample_tokenizer_dir, "done", "slow", register_model=None)
    over = threading.Event()

    class Sweep:
        def __init__(self, course: Course, *told: Any) -> None:
            self.course = course

        def run(self) -> dict[str, Any]:
            if self.course.benchmark.name == "slow":
                over.wait(600)
                raise TrainingError("the test is over")
            return ended(self.course)

    def show(board: Any, threads: Any) -> None:
        deadline = time.monotonic() + 60
        while not registered and time.monotonic() < deadline:  # while the other one still works
            time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark_sweep, "BenchmarkSweep", Sweep)
    monkeypatch.setattr(stage, "_show", show)
    try:
        with pytest.raises(KeyboardInterrupt):
            stage._sweep(found, found[0].config, News(), None)
    finally:
        over.set()  # `_sweep` does not wait for it, and in a later test it would print and write
        for thread in [each for each in threading.enumerate() if each.name == "slow"]:
            thread.join(60)
    assert "slow" not in [each.name for each in threading.enumerate()]
    assert registered == ["pmlm-done"]
    done, slow = (run_of(course) for course in found)
    assert (done.info.status, slow.info.status) == ("FINISHED", "KILLED")
    assert done.data.tags["winner"] == WINNER
    record = Record.load(found[0].run.path)
    assert record is not None
    assert (record.status, record.delivered) == ("FINISHED", True)  # so that nothing is left for the next command


@pytest.mark.parametrize("before", ["KILLED", "RUNNING"])
def test_a_finished_benchmark_that_was_closed_otherwise_is_closed_by_the_same_command(
    tmp_path: Path, sample_tokenizer_dir: str, registered: list[str], before: str
):
    (course,) = courses_of(tmp_path, sample_tokenizer_dir, "reviews", register_model=None)
    MlflowSink(course.run.path, course.config.tracking_uri, "pmlm-reviews", "sweep").finish(before, 60)
    ended(course)
    stage.run(course.config)
    assert run_of(course).info.status == "FINISHED"
    assert run_of(course).data.tags["winner"] == WINNER
    assert registered == ["pmlm-reviews"]
    journal = (course.run.path / "metrics.jsonl").read_bytes()
    stage.run(course.config)
    assert registered == ["pmlm-reviews"]  # the alias may be another sweep's by now
    assert (course.run.path / "metrics.jsonl").read_bytes() == journal


def test_a_winner_without_a_model_is_told(
    tmp_path: Path, sample_tokenizer_dir: str, registered: list[str], capsys: pytest.CaptureFixture[str]
):
    (course,) = courses_of(tmp_path, sample_tokenizer_dir, "reviews", register_model=None)
    ended(course, model=False)
    stage.run(course.config)
    assert not registered
    assert "the winner's model was removed from" in capsys.readouterr().out
