"""What MLflow is told of a trial."""

import json
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("left", "sent"),
    [
        ({"sent_artifacts": ["scores.json"]}, False),
        ({"sent_artifacts": []}, True),  # killed before its files went
        ({}, False),  # an earlier version's, which did not note them
        ({"pending_artifacts": ["scores.json"]}, True),
        ({"status": "KILLED"}, True),  # scored while the driver was told to end
    ],
)
def test_trials_that_mlflow_has_are_not_sent_again(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch, left: dict[str, Any], sent: bool
):
    (course,), _ = courses(SweepConfig(**make_sweep(tmp_path, sample_tokenizer_dir, tracking_uri="none")))
    updated: list[Path] = []
    monkeypatch.setattr(SweepTracking, "update", lambda self, folder: updated.append(folder))
    folder = tmp_path / "trial"
    Record("sqlite:///x.db", "pmlm", "trial", status="FINISHED", delivered=True).save(folder)
    told = json.loads((folder / "mlflow.json").read_text())
    del told["sent_artifacts"]
    (folder / "mlflow.json").write_text(json.dumps({**told, **left}))
    SweepTracking(course).catch_up(folder)
    assert updated == [folder] * sent
