"""How often something is called more than noise that is none, and what is said where that cannot be told."""

from dataclasses import replace

import numpy as np
import pytest
from comparing_shelf import SOME, Shelf, only, results, run

from pipelines.compare import resampling
from pipelines.compare.comparison import headline, how
from pipelines.compare.page.build import page


def test_a_groups_own_configurations_count_as_it_was_by_them_that_its_best_was_chosen():
    many = [run(f"a{i}", 60.0 + i, options={"learning_rate": (i + 1) * 1e-4}) for i in range(4)]
    one = run("b", 50.0, options={"batch_size": 16})
    files = {each.id: results(*[1] * int(score), *[0] * (100 - int(score))) for each, score in (
        *((each, 60 + i) for i, each in enumerate(many)), (one, 50)
    )}  # fmt: skip
    difference = only(Shelf([*many, one], files), replace(SOME, group_by="batch_size")).differences[1]
    assert difference is not None
    assert difference.pairs == 3  # of 4 and 1 configurations, rounded up


def noise(random: np.random.Generator, groups: int, seeds: int, examples: int) -> Shelf:
    """Groups that differ by nothing but chance: by their examples, or, without examples, by their seeds."""
    runs, files = [], {}
    for group in range(groups):
        for seed in range(seeds):
            key = f"{group}-{seed}"
            right = random.integers(2, size=max(1, examples))
            score = float(100 * right.mean()) if examples else float(random.normal(60, 2))
            runs.append(run(key, score, seed, options={"batch_size": group + 1}))
            if examples:
                files[key] = results(*right)
    return Shelf(runs, files)


@pytest.mark.parametrize(("seeds", "examples"), [(1, 150), (5, 0)], ids=["paired", "over seeds"])
def test_that_anything_is_called_more_than_noise_by_chance_alone_is_rare(seeds: int, examples: int):
    """With as many tests as comparisons with the best it was one time in ten, for the best is picked by the data."""
    random, wrong, times = np.random.default_rng(3), 0, 60
    for _ in range(times):
        found = only(noise(random, 16, seeds, examples), replace(SOME, resamples=200))
        wrong += any(each.verdict == "more than noise" for each in found.differences if each is not None)
    assert wrong <= 0.05 * times


def test_as_many_resamples_are_drawn_as_could_tell_anything_of_so_many_groups():
    right = [36, *[18] * 14, 34]
    runs = [run(f"r{i}", 100 * count / 40, options={"batch_size": i + 1}) for i, count in enumerate(right)]
    files = {f"r{i}": results(*[1] * count, *[0] * (40 - count)) for i, count in enumerate(right)}
    found = only(Shelf(runs, files), replace(SOME, resamples=100))
    near, *far = found.differences[1:]
    assert near is not None
    assert (near.verdict, near.resamples) == ("within noise", 100)
    assert {(each.verdict, each.resamples) for each in far if each} == {("more than noise", 4800)}


def test_what_would_take_too_many_resamples_is_not_called_noise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resampling, "_MOST_WORK", {True: 1_000, False: 1_000})
    runs = [run("a", 90.0)] + [run(f"b{i}", 45.0, options={"batch_size": 16 + i}) for i in range(15)]
    files = {
        each.id: results(*[1] * 36, *[0] * 4) if each.id == "a" else results(*[1] * 18, *[0] * 22) for each in runs
    }
    found = only(Shelf(runs, files), replace(SOME, resamples=100))
    difference = found.differences[1]
    assert difference is not None
    assert difference.low is not None
    assert (difference.verdict, difference.p, difference.holm) == ("not tested", None, None)
    reason = "to tell among 120 pairs takes 4,800 resamples, too many for 40 examples: compare fewer groups"
    assert reason in how(difference)
    assert f"whether that is noise cannot be told: {reason}" in headline(found)
    shown = page([found], SOME)
    assert reason in shown
    assert "Holm’s adjustment for all pairs of groups" in shown
