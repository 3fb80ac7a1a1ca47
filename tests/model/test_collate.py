"""Batches against a row-by-row reading of the blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_makers import random_rows

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import DataError
from pmlm_core.model.collate import collate, max_predictions
from pmlm_core.model.objectives import Objective

NUMBERED_ELSEWHERE = SpecialIds(sos=101, pad=57, eos=102, unk=100, mask=103, pseudo=30522)


def expected_row(rows, b, objective, n, k, pad):
    """Row b by plain lists: context ids, mask, segments; slot positions, steps, labels."""
    ids = rows.input_ids[rows.offsets[b] : rows.offsets[b + 1]].tolist()
    masked = slice(rows.masked_offsets[b], rows.masked_offsets[b + 1])
    positions, replacements = rows.positions[masked].tolist(), rows.replacement_ids[masked].tolist()
    lengths = rows.step_lengths[rows.step_offsets[b] : rows.step_offsets[b + 1]]
    if Objective(objective).one_token_per_step:
        lengths = [1] * len(positions)
    steps = [i + 1 for i, length in enumerate(lengths) for _ in range(length)]
    corrupted = list(ids)
    for position, replacement in zip(positions, replacements, strict=True):
        corrupted[position] = replacement
    segments = [int(i >= rows.segment_starts[b]) for i in range(len(ids))]
    empty, unused = n - len(ids), k - len(positions)
    return {
        "input_ids": corrupted + [pad] * empty,
        "attention_mask": [1] * len(ids) + [0] * empty,
        "token_type_ids": segments + [0] * empty,
        "pseudo_position_ids": positions + [0] * unused,
        "pseudo_steps": steps + [0] * unused,
        "labels": [ids[p] for p in positions] + [-100] * unused,
    }


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(6, 40), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    objective=st.sampled_from(list(Objective)),
)
def test_batch_is_the_row_by_row_reading(lengths, seed, objective):
    rows = random_rows(lengths, seed=seed)
    n, k = 40, max_predictions(40, 0.3)
    batch = collate(rows, objective=objective, max_length=n, max_predictions=k, special_ids=NUMBERED_ELSEWHERE)
    for b in range(len(lengths)):
        for name, expected in expected_row(rows, b, objective, n, k, pad=57).items():
            assert batch[name].dtype == torch.int64
            assert batch[name][b].tolist() == expected, name


def test_ar_steps_hold_one_token_in_the_order_of_the_blocks():
    rows = random_rows([40], seed=3)
    par, ar = (
        collate(rows, objective=o, max_length=40, max_predictions=24, special_ids=SpecialIds()) for o in ("PAR", "AR")
    )
    used = int((ar["pseudo_steps"] > 0).sum())
    assert ar["pseudo_steps"][0, :used].tolist() == list(range(1, used + 1))
    assert torch.equal(ar["pseudo_position_ids"], par["pseudo_position_ids"])
    assert par["pseudo_steps"].max() < used, "this row has a block of several tokens"


def test_rows_that_do_not_fit_are_refused():
    rows = random_rows([40, 30])
    with pytest.raises(DataError, match="40 tokens and max_length is 32"):
        collate(rows, objective="AE", max_length=32, max_predictions=24, special_ids=SpecialIds())
    with pytest.raises(DataError, match="8 slots"):
        collate(rows, objective="AE", max_length=40, max_predictions=8, special_ids=SpecialIds())


@pytest.mark.parametrize(("length", "mask_prob"), [(16, 0.15), (128, 0.15), (512, 0.15), (512, 0.3)])
def test_max_predictions_holds_the_longest_overshoot(length, mask_prob):
    """Every token a block of six: the budget is overshot by five at most."""
    from pmlm_core.corpus.masking import mask_windows
    from pmlm_core.corpus.packing import Windows

    count = 50
    ids = np.full((count, length), 9, np.int32)
    ids[:, 0], ids[:, length // 2], ids[:, -1] = 0, 2, 2
    windows = Windows(ids.ravel(), np.arange(count + 1) * length, np.full(count, length // 2 + 1, np.int32))
    options = {"mask_prob": mask_prob, "block_prob": 1.0, "min_block": 6, "max_block": 6}
    view = mask_windows(
        windows, view=0, stream_key=0, first_row=0, special_ids=SpecialIds(), ordinary_ids=np.arange(6, 50), **options
    )
    slots = max_predictions(length, mask_prob)
    most = int(np.diff(view.offsets).max())
    assert most <= slots
    assert slots % 8 == 0
    assert slots - most < 8 + 6
