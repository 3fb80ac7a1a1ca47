"""How often something is called more than noise that is none, and what is said where that cannot be told."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparing_shelf import SOME, Shelf, only, results, run

from pipelines.compare import resampling
from pipelines.compare.comparison import headline, how
from pipelines.compare.differences import ALPHA
from pipelines.compare.page.build import page
from pipelines.compare.table import show
from pipelines.compare.write import write


def test_a_groups_own_configurations_count_as_it_was_by_them_that_its_best_was_chosen():
    many = [run(f"a{i}", 60.0 + i, options={"learning_rate": (i + 1) * 1e-4}) for i in range(4)]
    one = run("b", 50.0, options={"batch_size": 16})
    files = {each.id: results(*[1] * int(score), *[0] * (100 - int(score))) for each, score in (
        *((each, 60 + i) for i, each in enumerate(many)), (one, 50)
    )}  # fmt: skip
    difference = only(Shelf([*many, one], files), replace(SOME, group_by="batch_size")).differences[1]
    assert difference is not None
    assert difference.pairs == 3  # of 4 and 1 configurations, rounded up


def noise(random: np.random.Generator, groups: int, seeds: int, examples: int, spread: float = 0.0) -> Shelf:
    """Groups that differ by nothing but chance: by their examples, or, without examples, by their seeds.

    Args:
        spread: of seeds beside that of their examples: by how much the shares differ that they are right by.
    """
    runs, files = [], {}
    for group in range(groups):
        for seed in range(seeds):
            key = f"{group}-{seed}"
            right = (random.random(max(1, examples)) < random.normal(0.5, spread)).astype(int)
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
        wrong += any(each.holm is not None and each.holm < ALPHA for each in found.differences if each is not None)
    assert wrong <= 0.05 * times


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_noise_of_seeds_is_not_called_more_than_noise_however_many_the_examples(seeds: int):
    """Of so many examples the paired test finds that models differ, as they do. The rest is up to their seeds."""
    random, verdicts, times = np.random.default_rng(3), list[set[str]](), 25
    for _ in range(times):
        found = only(noise(random, 12, seeds, 500, spread=0.08), replace(SOME, resamples=200))
        verdicts.append({each.verdict for each in found.differences if each is not None})
    assert sum("more than noise" in each for each in verdicts) <= 0.05 * times
    doubted = "other seeds unknown" if seeds == 1 else "depends on seeds"
    assert sum(doubted in each for each in verdicts) > 0.9 * times


def test_what_options_do_is_still_found_over_so_many_seeds_and_examples():
    random = np.random.default_rng(3)
    shelf = noise(random, 4, 5, 2000, spread=0.01)
    for seed in range(5):
        right = (random.random(2000) < random.normal(0.6, 0.01)).astype(int)
        shelf.found.append(run(f"better-{seed}", float(100 * right.mean()), seed, options={"batch_size": 99}))
        shelf.files[f"better-{seed}"] = results(*right)
    found = only(shelf, replace(SOME, resamples=200))
    assert found.groups[0].label == "batch 99"
    assert {each.verdict for each in found.differences if each is not None} == {"more than noise"}


def test_a_verdict_on_one_seed_each_says_so_wherever_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = {"a": results(*[1] * 30, *[0] * 10), "b": results(*[1] * 18, *[0] * 22)}
    found = only(Shelf([run("a", 75.0), run("b", 45.0, options={"batch_size": 16})], files))
    show(found, "configuration")
    write([found], str(tmp_path))
    rows = list(csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines()))
    assert [row["verdict"] for row in rows] == ["", "other seeds unknown"]
    words = "more than noise on these examples; one seed each, other seeds unknown"
    for told in (
        headline(found),
        capsys.readouterr().out,
        (tmp_path / "comparison.json").read_text(),
        page([found], SOME),
    ):
        assert words in " ".join(told.split())


def test_as_many_resamples_are_drawn_as_could_tell_anything_of_so_many_groups():
    right = [36, *[18] * 14, 34]
    runs = [run(f"r{i}", 100 * count / 40, options={"batch_size": i + 1}) for i, count in enumerate(right)]
    files = {f"r{i}": results(*[1] * count, *[0] * (40 - count)) for i, count in enumerate(right)}
    found = only(Shelf(runs, files), replace(SOME, resamples=100))
    near, *far = found.differences[1:]
    assert near is not None
    assert (near.verdict, near.resamples) == ("within noise", 100)
    assert {(each.verdict, each.resamples) for each in far if each} == {("other seeds unknown", 4800)}


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
