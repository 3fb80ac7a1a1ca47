"""Who is stopped early: Ray's own schedulers as a sweep sets them up, driven by made-up trials, without a cluster."""

import heapq
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeping_data import make_sweep

from pipelines.run_folder import RunDir
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import Course, courses
from pipelines.sweep.elsewhere import Place
from pipelines.sweep.plan import describe
from pipelines.sweep.schedule import Schedule
from pipelines.sweep.strategies import plan_of
from pipelines.sweep.trial import EPOCH, FINAL, SCHEDULE, SCORE, Reporter, Told
from pipelines.sweep.trials import Ended, Point

LENGTHS = {"mnli": ((3, 5, 10), 1), "rte": ((5, 10, 15), 2), "squad": ((2, 3, 4), 1), "scitldr": ((10, 20), 2)}


def course_of(tmp_path: Path, tokenizer_dir: str, lengths: Any, **options: Any) -> Course:
    space = {"num_train_epochs": {"choice": list(lengths)}, "warmup_ratio": {"uniform": [0.0, 0.2]}}
    text = {"micro_batch_size": 4, "max_length": 48}
    made = make_sweep(tmp_path, tokenizer_dir, space=space, **options)
    file = Path(made["benchmark"][0])
    file.write_text(file.read_text().replace('        "num_train_epochs": 3,\n', ""))
    (course,), _ = courses(SweepConfig(**{**made, "options": text}))
    return course


@given(st.integers(1, 12), st.integers(1, 6), st.floats(0, 0.5), st.integers(0, 20), st.sampled_from([2, 3, 4]))
def test_every_trial_is_judged_once_at_a_rung_and_none_before_the_shortest(
    shortest: int, grace_epochs: int, warmup: float, more: int, factor: int
):
    schedule, epochs = Schedule.of(shortest, grace_epochs, warmup), shortest + more
    times = [schedule.time(epoch, epochs) for epoch in range(1, epochs + 1)]
    assert times[-1] == schedule.full < schedule.ended
    rungs = [factor**power for power in range(schedule.rungs(factor))]
    assert all(rung < schedule.full <= factor ** len(rungs) for rung in rungs)
    for rung, following in itertools.pairwise([*rungs, schedule.full]):
        assert any(rung <= time < following for time in times)
        assert rung in [schedule.time(epoch, shortest) for epoch in range(1, shortest + 1)]
    if rungs:
        epoch = next(place for place, time in enumerate(times, 1) if time >= 1)
        assert epoch >= min(grace_epochs, shortest)
        assert epoch / epochs >= warmup - 1e-9


@dataclass(eq=False)
class Fake:
    """A trial that gets better until its end, the more so the longer it is; `worth` is its score there."""

    trial_id: str
    epochs: int
    worth: float
    status: str = "PENDING"
    is_saving: bool = False
    epoch: int = 0
    best: float = -np.inf

    @property
    def config(self) -> dict[str, Any]:
        return {}


class Cluster:
    """Runs trials by a scheduler, so many at a time; what Ray's controller does, without processes."""

    def __init__(self, course: Course, trials: list[Fake], at_a_time: int, random: np.random.Generator) -> None:
        self.course, self.trials, self.random = course, trials, random
        self.at_a_time, self.stopped, self.judged = at_a_time, set(), 0
        self.scheduler = plan_of(course).scheduler
        self.scheduler.set_search_properties(SCORE, "max")
        for trial in trials:
            self.scheduler.on_trial_add(self, trial)

    def get_trials(self) -> list[Fake]:
        return self.trials

    def stop_trial(self, trial: Fake) -> None:
        self.scheduler.on_trial_remove(self, trial)
        self._end(trial)

    def _end(self, trial: Fake) -> None:
        trial.status = "TERMINATED"
        if trial.epoch <= trial.epochs:
            self.stopped.add(trial)

    def run(self) -> None:
        running: list[tuple[float, int, Fake]] = []
        count, now = itertools.count(), 0.0
        while True:
            while len(running) < self.at_a_time and (trial := self.scheduler.choose_trial_to_run(self)):
                trial.status = "RUNNING"
                heapq.heappush(running, (now + self.random.uniform(0.9, 1.1), next(count), trial))
            if not running:
                break
            now, _, trial = heapq.heappop(running)
            result = self.report(trial)
            decision = self.scheduler.on_trial_result(self, trial, result)
            if decision == "STOP" or trial.epoch > trial.epochs:
                self.scheduler.on_trial_complete(self, trial, result)
                self._end(trial)
            elif decision == "PAUSE":
                trial.status = "PAUSED"
            else:
                heapq.heappush(running, (now + self.random.uniform(0.9, 1.1), next(count), trial))
        assert all(trial.status == "TERMINATED" for trial in self.trials)

    def report(self, trial: Fake) -> dict[str, Any]:
        trial.epoch += 1
        share = trial.epoch / trial.epochs
        if trial.epoch > trial.epochs:
            return {SCORE: trial.best, FINAL: trial.best + 2, EPOCH: trial.epoch, SCHEDULE: self.course.schedule.ended}
        trial.best = max(trial.best, trial.worth - 4 * (1 - share) ** 2 + 0.15 * self.random.normal())
        return {SCORE: trial.best, EPOCH: trial.epoch, SCHEDULE: self.course.schedule.time(trial.epoch, trial.epochs)}


@pytest.mark.parametrize("strategy", ["random", "asha", "hyperband"])
@pytest.mark.parametrize("benchmark", LENGTHS)
def test_long_trials_that_are_better_are_stopped_no_more_often_than_short_ones(
    tmp_path: Path, sample_tokenizer_dir: str, strategy: str, benchmark: str
):
    lengths, grace = LENGTHS[benchmark]
    course = course_of(tmp_path, sample_tokenizer_dir, lengths, strategy=strategy, grace_epochs=grace)
    stopped, tried, kept, saved = dict.fromkeys(lengths, 0), dict.fromkeys(lengths, 0), 0, []
    for seed in range(40):
        random = np.random.default_rng(seed)
        chosen = [int(each) for each in random.choice(lengths, size=12)]
        trials = [Fake(str(i), each, random.normal() + 0.5 * np.log2(each)) for i, each in enumerate(chosen)]
        cluster = Cluster(course, trials, 4, random)
        cluster.run()
        for trial in trials:
            tried[trial.epochs] += 1
            stopped[trial.epochs] += trial in cluster.stopped
        kept += max(trials, key=lambda trial: trial.worth) not in cluster.stopped
        saved.append(1 - sum(min(trial.epoch, trial.epochs) for trial in trials) / sum(chosen))
    shares = [stopped[each] / tried[each] for each in lengths]
    assert shares[-1] <= shares[0] + 0.05, shares
    assert kept >= 37
    assert np.mean(saved) > 0.1


def test_a_score_with_other_decoding_is_not_what_others_are_measured_by(tmp_path: Path, sample_tokenizer_dir: str):
    """Short trials end first; their last score is of beams, two points above all that others reach greedily."""
    for strategy in ("asha", "random"):
        course = course_of(tmp_path, sample_tokenizer_dir, (3, 10), strategy=strategy)
        trials = [Fake(str(i), epochs, 50.0) for i, epochs in enumerate([3, 3, 3, 3, 10])]
        trials[-1].worth = 50.5
        cluster = Cluster(course, trials, 5, np.random.default_rng(0))
        cluster.run()
        assert trials[-1] not in cluster.stopped


def test_where_the_shortest_trial_is_all_grace_none_is_stopped_and_that_is_said(
    tmp_path: Path, sample_tokenizer_dir: str
):
    for strategy in ("asha", "hyperband", "random", "optuna"):
        course = course_of(tmp_path, sample_tokenizer_dir, (1, 4), strategy=strategy)
        assert plan_of(course).scheduler is None
        assert "none is stopped early, for the shortest has 1 epoch" in "\n".join(describe([course]))
    course = course_of(tmp_path, sample_tokenizer_dir, (3, 5), strategy="asha")
    assert ", less where hopeless ones are stopped, 33% into their epochs or later" in "\n".join(describe([course]))
    course = course_of(tmp_path, sample_tokenizer_dir, (10,), strategy="asha", grace_epochs=1)
    assert course.schedule == Schedule(10, 2)  # warm-up takes up to a fifth


def test_members_of_a_population_have_one_schedule(tmp_path: Path, sample_tokenizer_dir: str):
    course = course_of(tmp_path, sample_tokenizer_dir, (3, 5, 10), strategy="pbt", num_samples=4)
    plan = plan_of(course)
    assert plan.param_space["num_train_epochs"] == 10 == course.max_epochs == course.schedule.shortest
    plan.scheduler.set_search_properties(SCORE, "max")
    steps = [course.schedule.time(epoch, 10) for epoch in range(1, 11)]
    assert all(b - a >= plan.scheduler._perturbation_interval for a, b in itertools.pairwise([0.0, *steps]))


@pytest.mark.parametrize("copies", [False, True])
def test_what_tune_is_told_of_a_trial_that_had_ended(
    tmp_path: Path, sample_tokenizer_dir: str, copies: bool, monkeypatch: pytest.MonkeyPatch
):
    from ray import tune

    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", told.append)
    course = course_of(tmp_path, sample_tokenizer_dir, (5, 10))
    base = Told(course.job, course.trials, "accuracy", 1, 1.0, 0.0, course.schedule, copies=copies)
    epochs = [{"epoch": i, "step": 8 * i, "scores": {"accuracy": score}} for i, score in ((1, 60.0), (2, 50.0))]
    (tmp_path / "trial").mkdir()
    report = Reporter(base, Place(RunDir(tmp_path / "trial")), 10)
    report.again(epochs)
    report.end(Ended(tmp_path / "trial", Point({}, 1), 70.0, 1, 1.0, {"epochs": epochs}))
    assert [each[SCORE] for each in told] == [60.0, 60.0, 60.0]
    assert [each.get(FINAL) for each in told] == [None, None, 70.0]
    assert [each[EPOCH] for each in told] == [1.0, 2.0, 3.0]
    # Grace and warm-up are the first of 5 epochs, the first two of 10; a population takes nothing over at the end.
    assert [each.get(SCHEDULE) for each in told] == [0.5, 1.0, None if copies else 6.0]
