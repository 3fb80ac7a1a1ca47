"""Batches by length: every row once an epoch, little padding, a function of (lengths, seed, epoch) and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.errors import DataError
from pmlm_core.training.grouping import GroupedBatches

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300)


def epoch(batches: GroupedBatches, number: int) -> list[np.ndarray]:
    first = number * batches.steps_per_epoch
    return [batches.rows(step) for step in range(first, first + batches.steps_per_epoch)]


@given(LENGTHS, st.integers(1, 40), st.integers(0, 3), st.integers(0, 5))
def test_every_epoch_visits_every_row_once(lengths, batch_size, seed, number):
    cut = epoch(GroupedBatches(lengths, batch_size, seed), number)
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(lengths)))
    sizes = sorted(len(rows) for rows in cut)
    assert sizes[1:] == [batch_size] * (len(cut) - 1)
    assert all((np.diff(np.asarray(lengths)[rows]) <= 0).all() for rows in cut)


def test_a_step_does_not_depend_on_what_was_asked_before():
    lengths = np.arange(1, 1000) % 97 + 1
    in_order = GroupedBatches(lengths, 8, seed=1)
    rows = [in_order.rows(step) for step in range(3 * in_order.steps_per_epoch)]
    for step in (300, 5, 374, 124, 125):
        assert (GroupedBatches(lengths, 8, seed=1).rows(step) == rows[step]).all()


def test_epochs_and_seeds_have_orders_of_their_own():
    lengths = np.arange(1, 1000) % 97 + 1
    batches = GroupedBatches(lengths, 8, seed=1)
    first = np.concatenate(epoch(batches, 0))
    assert (first != np.concatenate(epoch(batches, 1))).mean() > 0.9
    assert (first != np.concatenate(epoch(GroupedBatches(lengths, 8, seed=2), 0))).mean() > 0.9


def test_long_and_short_batches_come_mixed_with_little_padding():
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(3.4, 0.6, 8000), 4, 512).astype(int)
    batches = GroupedBatches(lengths, 32, seed=0)
    cut = epoch(batches, 0)
    shuffled = np.array_split(draw.permutation(len(lengths)), len(cut))
    slots = [sum(len(rows) * lengths[rows].max() for rows in each) for each in (cut, shuffled)]
    padding = [1 - lengths.sum() / number for number in slots]
    assert padding[0] < 0.08 < 0.4 < padding[1]
    means = [lengths[rows].mean() for rows in cut]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_no_rows_is_said():
    with pytest.raises(DataError, match="no rows to train on"):
        GroupedBatches([], 4, 0)
