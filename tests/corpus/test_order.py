import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from pmlm_core.corpus.order import batch_rows, permute
from pmlm_core.errors import DataError


@settings(deadline=None)
@given(st.integers(1, 3_000), st.integers(0, 2**64 - 1))
def test_every_row_once(n_rows: int, permutation_key: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(n_rows), n_rows, permutation_key)), np.arange(n_rows))


def test_rows_of_a_set_too_big_to_store() -> None:
    n_rows = 10**12
    wanted = np.arange(n_rows - 10_000, n_rows)
    images = permute(wanted, n_rows, 5)
    assert len(np.unique(images)) == 10_000
    assert images.min() >= 0
    assert images.max() < n_rows
    assert chisquare(np.bincount(images * 20 // n_rows, minlength=20)).pvalue > 1e-3


@pytest.mark.parametrize("n_rows", [2, 3, 5, 12, 40])
def test_every_row_comes_first_and_last_equally_often(n_rows: int) -> None:
    keys = range(200 * n_rows)
    images = np.array([permute(np.array([0, n_rows - 1]), n_rows, 1_000_003 * k) for k in keys])
    for column in images.T:
        assert chisquare(np.bincount(column, minlength=n_rows)).pvalue > 1e-3


def test_all_orders_of_three_rows_are_equally_likely() -> None:
    orders = np.array([permute(np.arange(3), 3, 77 * k + 1) for k in range(6_000)]) @ np.array([9, 3, 1])
    kinds, counts = np.unique(orders, return_counts=True)
    assert len(kinds) == 6
    assert chisquare(counts).pvalue > 1e-3


def test_neighbours_do_not_stay_neighbours() -> None:
    images = permute(np.arange(5_000), 5_000, 9)
    assert (np.abs(np.diff(images)) == 1).sum() < 10  # 2 expected of a random order
    assert abs(np.corrcoef(np.arange(5_000), images)[0, 1]) < 0.05


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 50), st.integers(1, 70), st.integers(1, 5), st.integers(0, 3))
def test_batches_walk_through_the_epochs(n_rows: int, batch_size: int, views: int, seed: int) -> None:
    steps = -(-3 * n_rows // batch_size)
    batches = [batch_rows(n_rows, batch_size, seed, step, views) for step in range(steps)]
    rows = np.concatenate([rows for rows, _ in batches])
    chosen = np.concatenate([chosen for _, chosen in batches])
    for epoch in range(3):
        part = slice(epoch * n_rows, (epoch + 1) * n_rows)
        assert sorted(rows[part].tolist()) == list(range(n_rows))
        assert set(chosen[part].tolist()) == {epoch % views}


def test_order_is_the_same_under_another_batch_size_and_differs_between_seeds_and_epochs() -> None:
    def samples(batch_size: int, seed: int) -> list[int]:
        parts = [batch_rows(60, batch_size, seed, step, 1)[0] for step in range(120 // batch_size)]
        return np.concatenate(parts).tolist()

    assert samples(8, 0) == samples(40, 0)
    assert samples(8, 0) != samples(8, 1)
    assert samples(8, 0)[:60] != samples(8, 0)[60:]


def test_a_step_is_found_without_the_steps_before_it() -> None:
    rows, views = batch_rows(10**9, 4, 0, 10**12, 4)
    assert rows.shape == views.shape == (4,)
    assert set(views.tolist()) == {(4 * 10**12 // 10**9) % 4}


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        batch_rows(0, 4, 0, 0, 1)
