"""A member of a population that took over another's state: what is said of its model."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweeping_data import make_sweep

from pipelines.finetune.conclude import _save
from pipelines.run_folder import RunDir
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import courses
from pipelines.sweep.population import ORIGIN, take_over
from pipelines.sweep.trials import Point, read_ended, write_point
from pmlm_core.training.checkpoint import folder_of


def test_the_epoch_of_its_model_is_one_that_it_has(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
):
    """The history that comes along has a better epoch, whose model stayed with the other."""
    from ray import tune

    (course,), _ = courses(SweepConfig(**make_sweep(tmp_path, sample_tokenizer_dir)))
    given = tmp_path / "given"
    given.mkdir()
    (given / ORIGIN).write_text(json.dumps({"trial": "member-other", "step": 16}))
    (given / "config.json").write_text("{}")

    class Given(SimpleNamespace):
        def as_directory(self) -> Any:
            return self

        def __enter__(self) -> str:
            return str(given)

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(tune, "get_checkpoint", Given)
    folder, point = tmp_path / "member-mine", Point({"learning_rate": 1e-3}, 1)
    folder.mkdir()
    assert take_over(folder, point)
    run = RunDir(folder)
    epochs = [{"epoch": i, "step": 8 * i, "scores": {"accuracy": s}} for i, s in ((1, 90.0), (2, 70.0))]
    _save(replace(course.job, run=run), folder_of(run.checkpoints, 16), {}, epochs)
    write_point(folder, point)
    scores = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps({**scores, "scores": {"dev": {"accuracy": 70.0}}}))
    ended = read_ended(folder, "accuracy", "dev")
    assert ended is not None
    assert ended.best_epoch == 2
    assert json.loads((folder / "model" / "pmlm_task.json").read_text())["epoch"] == 2
