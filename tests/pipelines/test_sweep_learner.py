"""What Optuna is told of trials: their final score, or that they were stopped."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sweeping_data import make_sweep

from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import Course, courses
from pipelines.sweep.learner import Learner
from pipelines.sweep.plan import describe
from pipelines.sweep.strategies import plan_of
from pipelines.sweep.trial import FINAL, SCHEDULE, SCORE
from pipelines.sweep.trials import Known, Point, known_trials, write_point
from pipelines.tracking.journal import Journal


def course_of(tmp_path: Path, tokenizer_dir: str, strategy: str, **options: Any) -> Course:
    made = make_sweep(tmp_path, tokenizer_dir, strategy=strategy, num_samples=9, finalists=0, **options)
    (course,), _ = courses(SweepConfig(**made))
    return course


def search_of(course: Course, known: list[Known]) -> Learner:
    plan = plan_of(course, known=known)
    plan.search_alg.set_search_properties(None, None, plan.param_space)
    return plan.search_alg.searcher  # without the limit of trials at a time


@pytest.mark.parametrize("strategy", ["optuna", "optuna_pareto"])
@pytest.mark.parametrize(("asked", "expected"), [(None, 2), (5, 5)])
def test_few_are_proposed_before_any_has_ended(
    tmp_path: Path, sample_tokenizer_dir: str, strategy: str, asked: int | None, expected: int
):
    """Nine proposed at once would be random search."""
    course = course_of(tmp_path, sample_tokenizer_dir, strategy, max_concurrent_trials=asked)
    plan = plan_of(course)
    plan.search_alg.set_search_properties(None, None, plan.param_space)
    proposed = [plan.search_alg.suggest(str(number)) for number in range(9)]
    assert [each is not None for each in proposed] == [True] * expected + [False] * (9 - expected)
    assert ("  2 at a time, for optuna" in "\n".join(describe([course]))) == (asked is None)


@pytest.mark.parametrize("strategy", ["optuna", "optuna_pareto"])
def test_only_a_trial_that_came_to_its_end_has_a_final_score(
    tmp_path: Path, sample_tokenizer_dir: str, strategy: str, recwarn: pytest.WarningsRecorder
):
    search = search_of(course_of(tmp_path, sample_tokenizer_dir, strategy), [])
    for name in ("whole", "cut", "failed"):
        search.suggest(name)

    def result(score: float, time: float) -> dict[str, Any]:
        return {SCORE: score, SCHEDULE: time, "seconds": 5.0, "training_iteration": 1}

    for name in ("whole", "cut", "failed"):
        search.on_trial_result(name, result(60.0, 1.0))
    search.on_trial_complete("whole", {**result(60.0, 4.0), FINAL: 63.0})
    search.on_trial_complete("cut", result(80.0, 2.0))  # Tune stops at a report of which it does not tell the search
    search.on_trial_complete("failed", error=True)
    whole, cut, failed = search._ot_study.get_trials()
    single = strategy == "optuna"
    assert (whole.state, whole.values) == (TrialState.COMPLETE, [63.0] if single else [63.0, 5.0])
    assert (cut.state, cut.intermediate_values) == (TrialState.PRUNED, {2000: 80.0} if single else {})
    assert failed.state == TrialState.FAIL
    assert [trial.number for trial in search._ot_study.best_trials] == [0]
    assert not recwarn.list


def test_of_stopped_trials_the_one_that_came_further_ranks_higher_whatever_its_epochs(
    tmp_path: Path, sample_tokenizer_dir: str
):
    """Two of 3 epochs are more of a schedule than four of 10."""
    course = course_of(tmp_path, sample_tokenizer_dir, "optuna")
    points = [Point({"learning_rate": rate, "weight_decay": 0.05, "batch_size": 8}, 1) for rate in (1e-3, 2e-3)]
    longer = Point({**points[1].params, "num_train_epochs": 10}, 1)
    known = [Known(points[0], "stopped", 70.0, 5.0, epochs=2), Known(longer, "stopped", 90.0, 5.0, epochs=4)]
    short, long = search_of(course, known)._ot_study.get_trials()
    assert (short.state, short.intermediate_values) == (TrialState.PRUNED, {2000: 70.0})
    assert (long.state, long.intermediate_values) == (TrialState.PRUNED, {1200: 90.0})


def test_a_stopped_trial_on_disk_is_known_with_the_epochs_it_had(tmp_path: Path):
    folder = tmp_path / "one"
    folder.mkdir()
    write_point(folder, Point({"learning_rate": 1e-3}, 1))
    (folder / "stopped.json").write_text('{"epoch": 2.0}')
    journal = Journal(folder)
    for step, score in ((8, 60.0), (16, 55.0)):
        journal.append(step, {"eval/accuracy": score})
    journal.close()
    (known,) = known_trials(tmp_path, "accuracy", "dev")
    assert (known.outcome, known.score, known.epochs) == ("stopped", 60.0, 2)
