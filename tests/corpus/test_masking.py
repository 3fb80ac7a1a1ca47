from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import algorithm1 as oracle
from scipy.stats import chi2_contingency, chisquare

from pmlm_core.corpus.masking import MaskedView, mask_windows
from pmlm_core.corpus.packing import Windows
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import ConfigError

IDS = SpecialIds()
ORDINARY = np.arange(6, 106)
PAPER: dict[str, Any] = {"mask_prob": 0.15, "block_prob": 0.4, "min_block": 2, "max_block": 6}


def windows_of(rows: list[list[int]]) -> Windows:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Windows(np.array([token for row in rows for token in row], np.int32), offsets, np.ones(len(rows), np.int32))


def repeated(row: list[int], times: int) -> Windows:
    offsets = np.arange(times + 1, dtype=np.int64) * len(row)
    return Windows(np.tile(np.array(row, np.int32), times), offsets, np.ones(times, np.int32))


def masked(windows: Windows, view: int = 0, stream_key: int = 11, first_row: int = 0, **options: Any) -> MaskedView:
    return mask_windows(
        windows,
        view=view,
        stream_key=stream_key,
        first_row=first_row,
        special_ids=IDS,
        ordinary_ids=ORDINARY,
        **options,
    )


def steps_of(view: MaskedView, r: int) -> list[list[int]]:
    positions = view.positions[view.offsets[r] : view.offsets[r + 1]]
    lengths = view.step_lengths[view.step_offsets[r] : view.step_offsets[r + 1]]
    return [part.tolist() for part in np.split(positions, np.cumsum(lengths)[:-1])] if len(lengths) else []


# Small texts, where the probability of every ordered outcome can be written down: the whole law is tested at once.
@pytest.mark.parametrize(
    ("row", "options"),
    [
        ([0, 7, 7, 7, 7, 2], {"mask_prob": 0.5, "block_prob": 0.4, "min_block": 2, "max_block": 3}),
        ([0, 7, 7, 2, 7, 7, 7, 2], {"mask_prob": 0.5, "block_prob": 0.5, "min_block": 2, "max_block": 4}),
        ([0, 7, 2, 7, 7, 7, 7, 3, 7, 2], {"mask_prob": 0.3, "block_prob": 0.4, "min_block": 2, "max_block": 6}),
        ([0, 7, 7, 7, 2, 7, 7, 7, 2], {"mask_prob": 0.4, "block_prob": 1.0, "min_block": 1, "max_block": 2}),
        ([7] * 9, {"mask_prob": 0.2, "block_prob": 0.4, "min_block": 2, "max_block": 6}),
        ([0, 7, 7, 7, 2, 2], {"mask_prob": 0.9, "block_prob": 0.0, "min_block": 2, "max_block": 6}),
    ],
)
def test_law_of_ordered_outcomes_is_that_of_algorithm_1(row: list[int], options: dict[str, Any]) -> None:
    times = 50_000
    view = masked(repeated(row, times), **options)
    law = oracle.law([token > 5 for token in row], **options)
    assert sum(law.values()) == pytest.approx(1.0)
    firsts = view.positions[np.cumsum(view.step_lengths) - view.step_lengths]
    steps = list(zip(firsts.tolist(), view.step_lengths.tolist(), strict=True))
    found = Counter(tuple(steps[begin:end]) for begin, end in pairwise(view.step_offsets.tolist()))
    assert set(found) <= set(law), "an outcome that Algorithm 1 cannot give"
    expected = np.array([law[outcome] * times for outcome in law])
    observed = np.array([found[outcome] for outcome in law])
    common = expected >= 5
    if not common.all():  # chi-square wants no tiny cells: pool them
        expected = np.append(expected[common], expected[~common].sum())
        observed = np.append(observed[common], observed[~common].sum())
    assert chisquare(observed, expected).pvalue > 1e-3


def binned(values: np.ndarray, edges: list[int]) -> np.ndarray:
    return np.bincount(np.digitize(values, edges), minlength=len(edges) + 1)


def test_at_512_tokens_lengths_counts_and_places_are_those_of_the_plain_reference() -> None:
    row = [0] + [9] * 255 + [2] + [9] * 254 + [2]
    view = masked(repeated(row, 20_000))
    random = Random(5)
    plain = [oracle.mask([token > 5 for token in row], random, **PAPER) for _ in range(1_500)]
    lengths = np.array([length for steps in plain for _, length in steps])
    starts = np.array([start for steps in plain for start, _ in steps])
    firsts = np.cumsum(view.step_lengths) - view.step_lengths
    pairs = {
        "step lengths": (np.bincount(view.step_lengths, minlength=7)[1:], np.bincount(lengths, minlength=7)[1:]),
        "tokens masked": (
            binned(np.diff(view.offsets), [78, 79, 80, 81]),
            binned(np.array([sum(n for _, n in steps) for steps in plain]), [78, 79, 80, 81]),
        ),
        "steps": (
            binned(np.diff(view.step_offsets), [32, 34, 36, 38, 40, 42, 44]),
            binned(np.array([len(steps) for steps in plain]), [32, 34, 36, 38, 40, 42, 44]),
        ),
        "starts": (binned(view.positions[firsts], list(range(32, 512, 32))), binned(starts, list(range(32, 512, 32)))),
    }
    for what, (fast, slow) in pairs.items():
        used = fast + slow > 0
        assert chi2_contingency(np.array([fast[used], slow[used]])).pvalue > 1e-3, what


def test_figures_the_method_gives_for_512_tokens() -> None:
    view = masked(repeated([9] * 512, 5_000))
    assert len(view.positions) / 5_000 == pytest.approx(78, abs=0.5)
    assert len(view.step_lengths) / 5_000 == pytest.approx(38, abs=1)
    assert view.step_lengths[view.step_lengths > 1].sum() / len(view.positions) == pytest.approx(0.69, abs=0.01)


def test_factorization_order_is_uniform() -> None:
    view = masked(repeated([9] * 200, 20_000), block_prob=0.0)  # 30 single positions a row: every order alike
    positions = view.positions.reshape(20_000, 30)
    for column in (0, 14, 29):
        assert chisquare(np.bincount(positions[:, column], minlength=200)).pvalue > 1e-3
    ranks = np.argsort(np.argsort(positions[:, [0, 10, 29]], axis=1), axis=1) @ np.array([9, 3, 1])
    assert chisquare(np.unique(ranks, return_counts=True)[1]).pvalue > 1e-3
    assert len(np.unique(ranks)) == 6


def test_corruption_is_80_10_10_and_random_tokens_are_uniform() -> None:
    original = 3_000  # lies outside ORDINARY, so that the three cases can be told apart
    view = masked(repeated([original] * 512, 4_000))
    is_mask, is_kept = view.replacement_ids == IDS.mask, view.replacement_ids == original
    random_ids = view.replacement_ids[~is_mask & ~is_kept]
    n = len(view.positions)
    observed = [is_mask.sum(), len(random_ids), is_kept.sum()]
    assert chisquare(observed, [0.8 * n, 0.1 * n, 0.1 * n]).pvalue > 1e-3
    assert set(random_ids.tolist()) <= set(ORDINARY.tolist())
    assert chisquare(np.bincount(random_ids - ORDINARY[0], minlength=100)).pvalue > 1e-3
    # Neighbouring slots of a row are corrupted independently.
    case = np.where(is_mask, 0, np.where(is_kept, 1, 2))
    table = np.bincount(case[:-1] * 3 + case[1:], minlength=9).reshape(3, 3)
    assert chi2_contingency(table).pvalue > 1e-3


TOKENS = st.sampled_from([0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 54, 55, 56, 57])
ROWS = st.lists(st.lists(TOKENS, min_size=1, max_size=60), min_size=1, max_size=8)


@settings(deadline=None)
@given(
    ROWS,
    st.floats(0.01, 0.99),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.integers(1, 6).flatmap(lambda least: st.tuples(st.just(least), st.integers(least, 8))),
)
def test_invariants(rows: list[list[int]], mask_prob: float, block_prob: float, block: tuple[int, int]) -> None:
    view = masked(windows_of(rows), mask_prob=mask_prob, block_prob=block_prob, min_block=block[0], max_block=block[1])
    for r, row in enumerate(rows):
        steps = steps_of(view, r)
        positions = [p for step in steps for p in step]
        maskable = [token > 5 for token in row]
        budget = oracle.budget(maskable, mask_prob)
        assert len(set(positions)) == len(positions)
        assert all(maskable[p] for p in positions)
        assert all(step == list(range(step[0], step[0] + len(step))) for step in steps)
        allowed = set(range(block[0], block[1] + 1)) | ({1} if block_prob < 1 else set())
        assert {len(step) for step in steps} <= allowed
        assert len(positions) - len(steps[-1] if steps else []) < max(budget, 1)  # the last step was still needed
        if block_prob < 1:
            assert len(positions) >= budget
        elif len(positions) < budget:  # ended short: then nothing legal is left
            free = [ok and p not in positions for p, ok in enumerate(maskable)]
            assert not any(oracle.legal((p, block[0]), free) for p in range(len(row)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3))
def test_a_row_does_not_depend_on_the_call_that_made_it(cut: int, other: int, view: int) -> None:
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 60, n).tolist() for n in rng.integers(1, 80, 40)]
    whole = masked(windows_of(rows), view=view)
    cuts = sorted({0, cut, other, 40})
    parts = [masked(windows_of(rows[a:b]), view=view, first_row=a) for a, b in pairwise(cuts)]
    for name in ("positions", "step_lengths", "replacement_ids"):
        assert np.concatenate([getattr(part, name) for part in parts]).tolist() == getattr(whole, name).tolist()


def test_views_rows_and_keys_are_masked_and_corrupted_differently() -> None:
    windows = repeated([9] * 128, 2)
    orders, corruptions = set(), set()
    for view in (0, 1):
        for stream_key in (1, 2):
            made = masked(windows, view=view, stream_key=stream_key, mask_prob=0.5, block_prob=0.0)
            orders |= set(map(tuple, made.positions.reshape(2, 64).tolist()))
            corruptions |= set(map(tuple, made.replacement_ids.reshape(2, 64).tolist()))
    assert (len(orders), len(corruptions)) == (8, 8)


def test_views_overlap_no_more_than_chance() -> None:
    windows = repeated([9] * 100, 5_000)
    taken = np.zeros((2, 5_000, 100), bool)
    for view in (0, 1):
        made = masked(windows, view=view, block_prob=0.0)
        taken[view, np.repeat(np.arange(5_000), np.diff(made.offsets)), made.positions] = True
    assert (taken[0] & taken[1]).sum() / 5_000 == pytest.approx(15 * 15 / 100, abs=0.05)


@pytest.mark.parametrize("row", [[0, 2, 2], [3] * 50, [1]])
def test_a_row_with_nothing_to_mask_gives_no_step(row: list[int]) -> None:
    view = masked(windows_of([row, [0, 9, 2, 2]]))
    assert steps_of(view, 0) == []
    assert steps_of(view, 1) == [[1]]


def test_no_rows() -> None:
    view = masked(Windows(np.empty(0, np.int32), np.zeros(1, np.int64), np.empty(0, np.int32)))
    assert len(view) == 0


def test_special_ids_of_another_vocabulary_are_respected() -> None:
    ids = SpecialIds(sos=101, pad=0, eos=102, unk=100, mask=103, pseudo=103)
    row = [101, 7, 100, 7, 0, 7, 102, 7, 103, 7, 7, 102]
    view = mask_windows(
        repeated(row, 500), view=0, stream_key=1, first_row=0, special_ids=ids, ordinary_ids=ORDINARY, mask_prob=0.9
    )
    assert set(view.positions.tolist()) == {1, 3, 5, 7, 9, 10}
    assert (view.replacement_ids == 103).any()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mask_prob": 0.0}, "mask_prob"),
        ({"mask_prob": 1.0}, "mask_prob"),
        ({"block_prob": 1.5}, "block_prob"),
        ({"min_block": 0}, "min_block"),
        ({"min_block": 7}, "min_block"),
        ({"max_block": 256}, "max_block"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        masked(windows_of([[9]]), **options)


def test_no_ordinary_ids_is_refused() -> None:
    with pytest.raises(ConfigError, match="ordinary"):
        mask_windows(
            windows_of([[9]]), view=0, stream_key=0, first_row=0, special_ids=IDS, ordinary_ids=np.array([], np.int32)
        )
