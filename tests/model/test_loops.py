"""What compiled loops are built from, against torch and plain Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.model.attention.softmax import softmax_, softmax_backward_
from pmlm_core.model.loops import compiled, exp, get, largest, numbers, put, random_words, share_rows, threshold

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40)


@compiled
def _copy(given, made):
    for i in range(len(given)):
        put(made, i, get(given, i))


@compiled
def _exp(given, made):
    for i in range(len(given)):
        put(made, i, exp(get(given, i)))


@compiled
def _largest(given):
    return largest(given)


@given(FLOATS)
def test_bf16_is_rounded_as_torch_does(values):
    exact = torch.tensor(values)
    rounded = torch.empty(len(values), dtype=torch.bfloat16)
    _copy(numbers(exact), numbers(rounded))
    assert torch.equal(rounded, exact.bfloat16())
    back = torch.empty(len(values))
    _copy(numbers(rounded), numbers(back))
    assert torch.equal(back, rounded.float())


def test_not_a_number_stays_one():
    rounded = torch.zeros(2, dtype=torch.bfloat16)
    _copy(numbers(torch.tensor([math.nan, math.inf])), numbers(rounded))
    assert rounded[0].isnan()
    assert rounded[1].isposinf()
    made = torch.zeros(1)
    _exp(numbers(torch.tensor([math.nan])), numbers(made))
    assert made.isnan().all()


@given(FLOATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_largest(dtype, values):
    x = torch.tensor(values).to(dtype)
    assert _largest(numbers(x)) == x.max().item()


def test_exp_is_right_to_the_last_bits_and_zero_for_what_is_hidden():
    x = torch.cat([torch.linspace(-86.99, 0, 100_001), torch.tensor([-88.0, torch.finfo(torch.float32).min])])
    made = torch.empty_like(x)
    _exp(numbers(x), numbers(made))
    torch.testing.assert_close(made[:-2], x[:-2].double().exp().float(), rtol=3e-7, atol=0)
    assert made[-2:].tolist() == [0.0, 0.0]


def test_random_words_are_splitmix():
    def splitmix(state):
        state = (state + 0) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    words = np.empty(9, np.uint64)
    random_words(words, np.uint64(2**63 + 5), np.uint64(1000))
    assert words.tolist() == [splitmix((2**63 + 5 + (1000 + i) * 0x9E3779B97F4A7C15) % 2**64) for i in range(9)]


def test_other_types_are_refused_with_a_sentence():
    with pytest.raises(TypeError, match=r"not in torch\.float16"):
        numbers(torch.zeros(1, dtype=torch.float16))


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 1000])
def test_rows_are_shared_without_gap_or_overlap(rows):
    torch.set_num_threads(3)
    parts = []
    share_rows(lambda start, stop: parts.append((start, stop)), rows, width=100_000)
    assert sorted(row for start, stop in parts for row in range(start, stop)) == list(range(rows))


def test_the_least_dropout_still_drops_and_none_does_not():
    assert [int(threshold(p)) for p in (0.0, 1e-9, 0.25)] == [0, 1, 16384]
    scores, kept = torch.randn(2, 300, 64), torch.full((2, 300, 64), 7.0)
    softmax_(scores, kept, None, scale=1.0, dropout_p=1e-9, seed=0, row=0)
    torch.testing.assert_close(kept, scores.clamp(min=0))


def test_not_a_number_is_not_dropped_out_of_sight():
    scores, kept = torch.zeros(1, 2, 8), torch.empty(1, 2, 8)
    scores[0, 0, 3] = math.nan
    softmax_(scores, kept, None, scale=1.0, dropout_p=0.25, seed=0, row=0)
    assert kept[0, 0].isnan().any()
    assert kept[0, 1].isfinite().all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("heads_of_bias", [1, 2])
def test_softmax_and_its_gradient_are_torchs(heads_of_bias, dropout_p, threads):
    torch.manual_seed(0)
    scores = torch.randn(2, 60, 401, dtype=torch.float64, requires_grad=True)
    signed, kept, sums = scores.detach().clone(), torch.empty_like(scores), torch.ones_like(scores)
    gradient, bias = torch.randn_like(scores), torch.randn(heads_of_bias, 60, 401, dtype=torch.float64)
    torch.set_num_threads(threads)
    softmax_(signed, kept, bias, scale=0.5, dropout_p=dropout_p, seed=3, row=5)
    scores_grad = gradient.clone()
    softmax_backward_(scores_grad, signed, kept_again := torch.empty_like(kept), sums, dropout_p)
    keep = (signed > 0).double() if dropout_p else torch.ones_like(signed)
    assert (1 - keep).mean().item() == pytest.approx(dropout_p, abs=0.01)
    products = scores * 0.5 + bias
    products.retain_grad()
    expected = torch.softmax(products, -1)
    (expected * keep / (1 - dropout_p)).backward(gradient)
    torch.testing.assert_close(signed.abs(), expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(scores_grad, products.grad, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(sums, 1 + products.grad, rtol=1e-12, atol=1e-15)
    if dropout_p:
        assert torch.equal(kept, signed.clamp(min=0))
        assert torch.equal(kept_again, kept)
