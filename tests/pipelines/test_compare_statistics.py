"""The tests of significance against slow, obvious versions of themselves."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.compare.pareto import pareto_front
from pipelines.compare.resampling import affordable, bootstrap, interval, permutation_p
from pipelines.compare.seeds_test import holm, over_seeds, welch
from pmlm_core.tasks.scores.paired import figure

Entry = dict[str, Any]


def means(*values: float) -> Entry:
    return {"kind": "mean", "values": list(values)}


def labels(gold: str, predicted: str) -> Entry:
    return {"kind": "labels", "gold": list(gold), "predicted": list(predicted)}


def taken(entry: Entry, places: Sequence[int]) -> Entry:
    return {part: value if part == "kind" else [value[i] for i in places] for part, value in entry.items()}


def mixed(one: Entry, other: Entry, swapped: Sequence[bool]) -> Entry:
    """The first entry with the other's results where `swapped`."""
    return {
        part: value
        if part == "kind"
        else [b if swap else a for a, b, swap in zip(value, other[part], swapped, strict=True)]
        for part, value in one.items()
    }


def exact_p(name: str, first: list[Entry], second: list[Entry]) -> float:
    """Over every way to swap examples; seeds are cycled to a common number."""
    examples = len(next(value for part, value in first[0].items() if part != "kind"))
    number = math.lcm(len(first), len(second))
    ones = [first[i * len(first) // number] for i in range(number)]
    ones, others = [first[i % len(first)] for i in range(number)], [second[i % len(second)] for i in range(number)]

    def difference(swapped: Sequence[bool]) -> float:
        here = [float(figure(name, mixed(a, b, swapped))) for a, b in zip(ones, others, strict=True)]
        there = [float(figure(name, mixed(b, a, swapped))) for a, b in zip(ones, others, strict=True)]
        return sum(here) / number - sum(there) / number

    observed = abs(difference([False] * examples))
    every = [abs(difference(swapped)) for swapped in itertools.product([False, True], repeat=examples)]
    return sum(value >= observed - 1e-9 for value in every) / len(every)


CASES = {
    "one seed": ("accuracy", [means(100, 100, 0, 100, 100, 0, 100, 100)], [means(0, 100, 0, 0, 100, 0, 0, 100)]),
    "shares": ("f1", [means(10, 100, 33, 50, 80, 0)], [means(0, 90, 40, 50, 20, 10)]),
    "seeds": (
        "accuracy",
        [means(100, 100, 0, 100, 0, 100), means(100, 0, 0, 100, 100, 100)],
        [means(0, 100, 0, 0, 0, 100), means(0, 0, 100, 0, 0, 100)],
    ),
    "uneven seeds of a correlation": (
        "matthews",
        [labels("11010010", "11010110"), labels("11010010", "01010010")],
        [labels("11010010", "10110010"), labels("11010010", "11001110"), labels("11010010", "01100010")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_randomization_comes_near_to_every_arrangement(case: str):
    name, first, second = CASES[case]
    exact = exact_p(name, first, second)
    drawn = permutation_p(name, first, second, 20_000, seed=3)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_which_of_two_systems_is_called_the_first_is_of_no_account(case: str):
    name, first, second = CASES[case]
    assert permutation_p(name, first, second, 500, 0) == permutation_p(name, second, first, 500, 0)


def test_equal_systems_do_not_differ():
    system = [means(100, 0, 100, 100)]
    assert permutation_p("accuracy", system, system, 200, 0) == 1.0
    table = bootstrap("accuracy", [system, system], 200, 0)
    assert interval(table[0] - table[1]) == (0.0, 0.0)


def test_p_is_never_nothing():
    assert permutation_p("accuracy", [means(*[100] * 60)], [means(*[0] * 60)], 500, 0) == pytest.approx(1 / 501)


def test_a_resample_is_the_figure_of_the_examples_drawn():
    systems = [
        [labels("1101001011", "1101011010"), labels("1101001011", "0101001011")],
        [labels("1101001011", "1011001011")],
    ]
    table = bootstrap("matthews", systems, 50, seed=11)
    draws = np.random.default_rng(11).integers(10, size=(50, 10))
    for row, system in enumerate(systems):
        for column, places in enumerate(draws):
            expected = np.mean([float(figure("matthews", taken(entry, places))) for entry in system])
            assert table[row, column] == pytest.approx(expected)


def test_large_sets_are_resampled_in_parts():
    values = np.random.default_rng(0).random(9_000) * 100
    table = bootstrap("f1", [[means(*values)]], 1_000, seed=5)
    assert table.shape == (1, 1_000)
    assert table.std() == pytest.approx(values.std() / math.sqrt(9_000), rel=0.1)


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says():
    random, held = np.random.default_rng(1), 0
    for _ in range(300):
        ease = random.normal(size=80)
        first = 100.0 * (ease + random.normal(size=80) > -0.4)
        second = 100.0 * (ease + random.normal(size=80) > 0.0)
        table = bootstrap("accuracy", [[means(*first)], [means(*second)]], 400, seed=int(random.integers(1 << 30)))
        low, high = interval(table[0] - table[1])
        truth = 100 * (0.5 * math.erfc(-0.4 / math.sqrt(2) / math.sqrt(2)) - 0.5)
        held += low <= truth <= high
    assert 0.90 <= held / 300 <= 0.98


def test_fewer_resamples_of_many_examples():
    assert affordable(500, 1_000_000) == 500
    assert affordable(10_000, 1_043) == 10_000
    assert affordable(10_000, 9_815) == 4_075


def test_welch_is_the_formula_of_the_books():
    one, other = [61.0, 62.5, 60.2, 61.8], [58.1, 60.9, 57.0]
    variances = [np.var(values, ddof=1) / len(values) for values in (one, other)]
    t = (np.mean(one) - np.mean(other)) / math.sqrt(sum(variances))
    degrees = sum(variances) ** 2 / sum(v**2 / (n - 1) for v, n in zip(variances, (4, 3), strict=True))
    from scipy import stats

    found = welch(one, other)
    assert found is not None
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), degrees))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(sum(variances))
    assert (found.low, found.high) == pytest.approx(
        (np.mean(one) - np.mean(other) - half, np.mean(one) - np.mean(other) + half)
    )


def test_welch_needs_several_seeds_that_differ():
    assert welch([61.0], [58.0, 59.0]) is None
    assert welch([61.0, 61.0], [58.0, 58.0]) is None
    assert welch([61.0, 61.0], [58.0, 58.5]) is not None


def test_one_run_is_held_against_the_spread_of_the_others():
    from scipy import stats

    others = [61.0, 62.5, 60.2]
    t = (66.0 - np.mean(others)) / (np.std(others, ddof=1) * math.sqrt(4 / 3))
    assert over_seeds([66.0], others) == over_seeds(others, [66.0]) == pytest.approx(2 * stats.t.sf(t, 2))
    assert over_seeds([66.0], [60.0]) is None
    assert over_seeds([66.0], [60.0, 60.0]) is None
    assert over_seeds(others, [60.0, 61.0]) == welch(others, [60.0, 61.0]).p  # type: ignore[union-attr]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_its_steps_reject(ps: list[float], alpha: float):
    """Step down from the least p: each is held against alpha over the number that are left, until one fails."""
    rejected = set()
    for step, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        if ps[place] * (len(ps) - step) > alpha:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(ps)) if p <= alpha} == rejected


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=25))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]):
    front = pareto_front(points)
    beats = lambda a, b: a[0] <= b[0] and a[1] >= b[1] and a != b  # noqa: E731
    assert {points[place] for place in front} == {p for p in points if not any(beats(q, p) for q in points)}
    assert [points[place][0] for place in front] == sorted(points[place][0] for place in front)
