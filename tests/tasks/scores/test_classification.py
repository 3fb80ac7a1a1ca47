"""Figures of classification and regression: values computed by hand, undefined ones, wrong input."""

import math

import pytest

from pmlm_core.errors import DataError
from pmlm_core.tasks.scores.classification import accuracy, f1_binary, f1_macro, matthews, pearson_spearman

# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
GOLD = ["1"] * 3 + ["0"] + ["1"] * 2 + ["0"] * 4
PREDICTED = ["1"] * 4 + ["0"] * 6


def test_by_hand():
    assert accuracy(GOLD, PREDICTED) == pytest.approx(70)
    assert f1_binary(GOLD, PREDICTED) == pytest.approx(100 * 6 / 9)
    assert f1_binary(GOLD, PREDICTED, positive="0") == pytest.approx(100 * 8 / 11)
    assert f1_macro(GOLD, PREDICTED) == pytest.approx(50 * (6 / 9 + 8 / 11))
    assert matthews(GOLD, PREDICTED) == pytest.approx(100 * (3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6))


def test_correlations_by_hand():
    """Deviations of gold -2 -1 0 1 2, of predictions -5 -4 -3 -2 14; ranks 1 2 3 4 5 of both."""
    figures = pearson_spearman([0.0, 1, 2, 3, 4], [1.0, 2, 3, 4, 20])
    assert figures["pearson"] == pytest.approx(100 * (10 + 4 - 2 + 28) / math.sqrt(10 * (25 + 16 + 9 + 4 + 196)))
    assert figures["spearman"] == pytest.approx(100)


def test_ties_have_their_mean_rank():
    """Ranks 1 2.5 2.5 4 against 1 2 3 4: covariance 4.5, variances 4.5 and 5."""
    assert pearson_spearman([0, 1, 1, 2], [0, 1, 2, 3])["spearman"] == pytest.approx(100 * 4.5 / math.sqrt(4.5 * 5))


def test_three_classes():
    """Matthews' of several classes: all right is 100; a shifted answer everywhere is -50 for three even classes."""
    gold = ["entailment", "neutral", "contradiction"]
    assert matthews(gold, gold) == pytest.approx(100)
    assert matthews(gold, ["neutral", "contradiction", "entailment"]) == pytest.approx(-50)


def test_undefined_is_zero(caplog):
    assert matthews(["0", "1"], ["1", "1"]) == 0
    assert f1_binary(["0", "0"], ["0", "0"]) == 0
    assert f1_binary(["0", "1"], ["0", "0"]) == 0
    assert not caplog.records
    assert pearson_spearman([1.0, 2.0], [3.0, 3.0]) == {"pearson": 0, "spearman": 0}
    assert "all 2 predictions are 3" in caplog.text


def test_labels_of_any_script():
    assert accuracy(["ja", "né", "да"], ["ja", "ne", "да"]) == pytest.approx(200 / 3)


@pytest.mark.parametrize("score", [accuracy, f1_binary, f1_macro, matthews, pearson_spearman])
def test_wrong_input(score):
    with pytest.raises(DataError, match="1 predictions for 2 examples"):
        score([1, 0], [1])
    with pytest.raises(DataError, match="no examples"):
        score([], [])


def test_numbers_that_are_not_finite():
    with pytest.raises(DataError, match=r"prediction 1 .* nan"):
        pearson_spearman([1.0, 2.0], [1.0, math.nan])
