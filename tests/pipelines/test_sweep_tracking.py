"""What MLflow is told of a trial."""

from pathlib import Path

import pytest
from sweeping_data import BENCHMARK, make_sweep

from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import courses
from pipelines.sweep.tracking import SweepTracking
from pipelines.sweep.trials import Point
from pipelines.tracking.record import Record


@pytest.mark.parametrize("asked", [None, 4])
def test_parameters_are_those_that_the_trial_is_trained_with(
    tmp_path: Path, sample_tokenizer_dir: str, asked: int | None
):
    made = make_sweep(tmp_path, sample_tokenizer_dir, cpus_per_trial=2)
    if asked is None:
        (tmp_path / "reviews.py").write_text(BENCHMARK.replace('"micro_batch_size": 4,', ""))
    (course,), _ = courses(SweepConfig(**made))
    point = Point({"learning_rate": 1e-3, "weight_decay": 0.0, "batch_size": 8}, 1)
    tracking = SweepTracking(course)
    tracking.begin(point.name, point, "search")
    tracking.interrupt()
    tracking.close("KILLED", None)
    record = Record.load(course.trials / point.name)
    assert record is not None
    assert record.params["threads_per_worker"] == "2"
    assert record.params.get("micro_batch_size") == (None if asked is None else "4")
    assert record.params["learning_rate"] == "0.001"
