"""Learning rates: shape, end points, no update wasted."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.training.schedule import KINDS, learning_rate


def rates(kind: str, warmup: int, steps: int) -> list[float]:
    return [learning_rate(s, peak=2.0, kind=kind, warmup_steps=warmup, max_steps=steps) for s in range(steps)]


@given(st.sampled_from(KINDS), st.integers(0, 20), st.integers(1, 60))
def test_rises_to_the_peak_and_never_exceeds_it_nor_reaches_zero(kind, warmup, steps):
    warmup = min(warmup, steps)
    found = rates(kind, warmup, steps)
    assert all(0.0 < rate <= 2.0 for rate in found)
    assert found[: warmup + 1] == sorted(found[: warmup + 1])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert math.isclose(max(found), 2.0)


def test_linear_is_the_paper_s_triangle():
    found = rates("linear", 4, 12)
    assert found == pytest.approx([0.5, 1.0, 1.5, 2.0, *[2.0 * (12 - s) / 8 for s in range(4, 12)]])


def test_cosine_is_half_way_down_in_the_middle():
    assert learning_rate(50, peak=2.0, kind="cosine", warmup_steps=0, max_steps=100) == pytest.approx(1.0)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="linear, cosine, constant"):
        learning_rate(5, peak=1.0, kind="cubic", warmup_steps=0, max_steps=10)
