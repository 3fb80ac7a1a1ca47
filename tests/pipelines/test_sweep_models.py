"""Which models of trials are kept, and that the winner has one; trials are written here in place of trained."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweeping_data import make_sweep

from pipelines.sweep import benchmark_sweep
from pipelines.sweep.board import Board, Standing
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import Course, courses
from pipelines.sweep.tracking import SweepTracking
from pipelines.sweep.trial import Told
from pipelines.sweep.trials import Point, ended_trials, write_point
from pipelines.sweep.watch import Watch
from pipelines.tracking.journal import Journal

LOW, HIGH = {"learning_rate": 1e-3, "batch_size": 8}, {"learning_rate": 3e-3, "batch_size": 8}


def grid_of(folder: Path, tokenizer_dir: str, seeds: str) -> Course:
    made = make_sweep(folder, tokenizer_dir, strategy="paper_grid", seeds=seeds, tracking_uri="none")
    (course,), _ = courses(SweepConfig(**made))
    return course


def put(course: Course, params: dict[str, Any], seed: int, score: float) -> Path:
    """A finished trial with a model."""
    point = Point(params, seed)
    folder = course.trials / point.name
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    write_point(folder, point)
    (folder / "scores.json").write_text(json.dumps({"scores": {"dev": {"accuracy": score}}, "best_epoch": 1}))
    return folder


def kept(course: Course) -> list[tuple[float, int]]:
    found = ended_trials(course.trials, "accuracy", "dev")
    return sorted((each.point.params["learning_rate"], each.point.seed) for each in found if each.has_model)


def test_a_grid_keeps_models_until_it_is_known_how_good_their_configuration_is(
    tmp_path: Path, sample_tokenizer_dir: str
):
    course = grid_of(tmp_path, sample_tokenizer_dir, "1,2,3")
    watch = Watch(course, Board([Standing("reviews", "accuracy")]), SweepTracking(course), lambda: None)
    watch.begin("search", 6, False, [], [])

    def end(params: dict[str, Any], seed: int, score: float | None) -> None:
        if score is not None:
            put(course, params, seed, score)
        told = SimpleNamespace(config={**params, "seed": seed}, last_result={})
        watch.ended(told, failed=score is None)

    end(LOW, 1, 70.0)
    end(HIGH, 1, 60.0)  # behind, but nobody knows of its other seeds
    end(HIGH, 2, 90.0)
    end(LOW, 2, None)
    assert kept(course) == [(1e-3, 1), (3e-3, 1), (3e-3, 2)]
    end(LOW, 3, None)
    end(HIGH, 3, 50.0)  # the only one with all seeds, though the mean of the other's one is higher
    assert kept(course) == [(3e-3, 1), (3e-3, 2), (3e-3, 3)]


def test_scores_of_epochs_and_of_the_search_do_not_stand_for_final_ones(tmp_path: Path, sample_tokenizer_dir: str):
    course = grid_of(tmp_path, sample_tokenizer_dir, "1")
    board = Board([Standing("reviews", "accuracy")])
    watch = Watch(course, board, SweepTracking(course), lambda: None)
    watch.begin("search", 2, False, [], [])
    told = SimpleNamespace(config={**HIGH, "seed": 1}, last_result={})
    watch.reported(told, {"score": 90.0})
    assert "best epoch so far accuracy 90.00" in board.line()
    watch.reported(told, {"score": 90.0, "final": 60.0})
    put(course, HIGH, 1, 60.0)
    watch.ended(told, failed=False)
    assert "best trial accuracy 60.00" in board.line()
    journal = Journal(course.run.path)
    assert [entry.metrics["best/accuracy"] for entry in journal.entries()] == [60.0]
    watch.begin("finalists", 1, False, ended_trials(course.trials, "accuracy", "dev"), [])
    assert "reviews winner 0/1" in board.line()  # a grid has no finalists
    assert "best" not in board.line()


def test_the_winner_has_a_model_though_others_were_trained_again_and_were_worse(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
):
    course = grid_of(tmp_path, sample_tokenizer_dir, "1,2")
    finals: list[frozenset[str]] = []

    def fit(course: Course, phase: str, plan: Any, trainable: Any, told: Told, watch: Any) -> None:
        if phase == "search":
            for params, score in ((LOW, 70.0), (HIGH, 69.0)):
                for seed in course.seeds:
                    shutil.rmtree(put(course, params, seed, score) / "model")
            return
        finals.append(told.wants_model)
        for each in list(ended_trials(course.trials, "accuracy", "dev")):
            if each.folder.name in told.wants_model and not each.has_model:
                put(course, each.point.params, each.point.seed, 60.0 if each.point.params == LOW else 68.0)

    monkeypatch.setattr(benchmark_sweep, "fit", fit)
    monkeypatch.setattr(benchmark_sweep.BenchmarkSweep, "_complete", lambda sweep, best: None)
    board, tracking = Board([Standing("reviews", "accuracy")]), SweepTracking(course)
    won = benchmark_sweep.BenchmarkSweep(course, board, tracking, lambda: None).run()["winner"]
    assert won["params"] == HIGH
    assert (course.trials / won["trial"] / "model").is_dir()
    assert len(finals) == 3  # LOW's, HIGH's first seed, and, as that fell behind, its second
