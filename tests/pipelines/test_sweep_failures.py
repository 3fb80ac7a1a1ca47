"""A trial that fails for good, under Tune: it is tried again as often as that may help, and no more."""

from pathlib import Path
from typing import Any

import pytest
from sweeping_data import make_sweep

from pipelines.finetune.rundir import write_json
from pipelines.sweep.board import Board, Standing
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import courses
from pipelines.sweep.strategies import plan_of
from pipelines.sweep.tracking import SweepTracking
from pipelines.sweep.trial import point_of
from pipelines.sweep.trials import FAILURE
from pipelines.sweep.tune_run import fit
from pipelines.sweep.watch import Watch


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("limit", "for_good", "attempts"), [(-1, True, 2), (1, False, 2), (0, False, 1)])
def test_what_fails_for_good_is_not_tried_without_end(
    tmp_path: Path, sample_tokenizer_dir: str, limit: int, for_good: bool, attempts: int
):
    """The second attempt of what fails for good finds the first one's reason and trains nothing."""
    one = {"strategy": "paper_grid", "grid": {"learning_rate": [1e-3]}, "seeds": "1", "tracking_uri": "none"}
    (course,), _ = courses(SweepConfig(**make_sweep(tmp_path, sample_tokenizer_dir, max_failures=limit, **one)))
    count = tmp_path / "attempts"

    def trainable(config: dict[str, Any], told: Path) -> None:
        count.write_text(f"{count.read_text() if count.exists() else ''}x")
        if for_good:
            write_json(told / point_of(config["point"], 1).name / FAILURE, {"message": "the loss is nan"})
        assert len(count.read_text()) < 5, "an end to this test"
        if len(count.read_text()) < 4:
            raise RuntimeError("the loss is nan")

    board = Board([Standing("reviews", "accuracy")])
    watch = Watch(course, board, SweepTracking(course), lambda: None)
    told: Any = course.trials
    fit(course, "search", plan_of(course), trainable, told, watch.begin("search", 1, False, [], []))
    assert count.read_text() == "x" * attempts
    assert board.standings["reviews"].count("failed") == 1
