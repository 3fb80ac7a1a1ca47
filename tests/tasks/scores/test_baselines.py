"""Baselines."""

import pytest

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import QaExample, TextExample
from pmlm_core.tasks.scores.baselines import lead, majority_label, mean_value, no_answer
from pmlm_core.tasks.scores.squad import squad_v2


def texts(*labels):
    return [TextExample(str(i), i, "x", None, label) for i, label in enumerate(labels)]


def test_majority():
    assert majority_label(texts("b", "a", "b", None, None, None)) == "b"
    assert majority_label(texts("b", "a", "c", "a", "b")) == "a"


def test_mean():
    assert mean_value(texts(1.0, 4.0, None)) == 2.5


@pytest.mark.parametrize("baseline", [majority_label, mean_value])
def test_without_labels(baseline):
    with pytest.raises(DataError, match="no training example has a label"):
        baseline(texts(None))


def test_lead():
    source = "First one. Second\nThird! Fourth."
    assert lead(source) == "First one.\nSecond\nThird!"
    assert lead(source, 1) == "First one."
    assert lead("", 3) == ""


def test_no_answer():
    """Scores the share of unanswerable questions."""
    examples = [QaExample("a", 1, "?", "", (("x", 0),), False), QaExample("b", 2, "?", "", (), True)]
    assert squad_v2(examples, {example.id: no_answer().text for example in examples})["f1"] == 50
