"""SQuAD's figures against an oracle written from the published rules, and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import squad as oracle

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import QaExample
from pmlm_core.tasks.scores.squad import normalize, squad_v1, squad_v2

WORDS = ["the", "A", "an", "cat", "Cat,", "sat", "--", "'s", "U.S.", "Ödön", "naïve", "theory", "\u00a0", "1", "“the”"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)


def examples_of(questions):
    return [QaExample(str(i), i + 1, "?", "", tuple((a, 0) for a in q[0])) for i, q in enumerate(questions)]


def by_id(questions, place):
    return {str(i): question[place] for i, question in enumerate(questions)}


@given(st.lists(st.tuples(st.lists(TEXTS, min_size=1, max_size=3), TEXTS), min_size=1, max_size=6))
def test_v1_equals_the_oracle(questions):
    assert squad_v1(examples_of(questions), by_id(questions, 1)) == pytest.approx(oracle.v1(questions))


QUESTIONS_V2 = st.lists(
    st.tuples(st.lists(TEXTS, max_size=2), TEXTS, st.integers(-20, 20)),
    min_size=1,
    max_size=8,
    unique_by=lambda question: question[2],
)


@given(QUESTIONS_V2)
def test_v2_equals_the_oracle(questions):
    examples, texts, null_scores = examples_of(questions), by_id(questions, 1), by_id(questions, 2)
    wanted = oracle.v2(questions, float("inf"))
    assert squad_v2(examples, texts) == pytest.approx(wanted)
    found = squad_v2(examples, texts, null_scores)
    for name in ("exact", "f1"):
        wanted[f"best_{name}"], wanted[f"best_{name}_thresh"] = oracle.best(questions, name)
        assert found[f"best_{name}_thresh"] == wanted[f"best_{name}_thresh"]
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("The Theory, an  anthem!", "theory anthem"),
        ("U.S.A.", "usa"),
        ("a-b", "ab"),
        ("“the” end", "“ ” end"),  # Only ASCII punctuation goes, and an article between other marks goes too.
        ("ÉCLAIR\u00a0au  lait", "éclair au lait"),
        ("the", ""),
    ],
)
def test_normalization(text, compared):
    assert normalize(text) == compared


def test_v1_by_hand():
    """One of two words right: precision 1, recall 1/2; the best of several answers counts, for each figure its own."""
    examples = [
        QaExample("a", 1, "?", "", (("Denver Broncos", 0), ("the Denver Broncos team", 0))),
        QaExample("b", 2, "?", "", (("gold", 0), ("gold color", 0))),
    ]
    figures = squad_v1(examples, {"a": "Denver", "b": "Gold.", "another": "x"})
    assert figures == pytest.approx({"exact_match": 50, "f1": 100 * (2 / 3 + 1) / 2})


def test_texts_without_a_token():
    """v1.1: the same nothing is an exact match with F1 0; v2.0: both are 1."""
    examples = [QaExample("a", 1, "?", "", (("The", 0),))]
    assert squad_v1(examples, {"a": "an"}) == {"exact_match": 100, "f1": 0}
    figures = squad_v2(examples, {"a": "an"})
    assert (figures["exact"], figures["f1"]) == (100, 100)
    assert set(figures) == {"exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total"}


def test_thresholds_by_hand():
    """Answering only "a" and "b" is best: they are right, and "c", "d" are unanswerable."""
    examples = [
        QaExample("c", 1, "?", "", (), True),
        QaExample("a", 2, "?", "", (("red", 0),), False),
        QaExample("d", 3, "?", "", (), True),
        QaExample("b", 4, "?", "", (("blue", 0),), False),
    ]
    texts = {"a": "red", "b": "blue sky", "c": "x", "d": "y"}
    null_scores = {"a": -3.0, "b": -1.5, "c": 2.0, "d": -1.0}
    figures = squad_v2(examples, texts, null_scores)
    assert (figures["HasAns_exact"], figures["NoAns_exact"], figures["exact"]) == (50, 0, 25)
    assert figures["best_f1"] == pytest.approx(100 * (1 + 2 / 3 + 2) / 4)
    assert figures["best_f1_thresh"] == -1.5
    assert (figures["best_exact"], figures["best_exact_thresh"]) == (75, -3.0)


def test_equal_null_scores_are_passed_one_by_one():
    """As the official script does: in the order of the questions, even between equal scores."""
    right, wrong = QaExample("r", 1, "?", "", (("x", 0),)), QaExample("n", 2, "?", "")
    texts, null_scores = {"r": "x", "n": "y"}, {"r": 1.0, "n": 1.0}
    assert squad_v2([right, wrong], texts, null_scores)["best_exact"] == 100
    assert squad_v2([wrong, right], texts, null_scores)["best_exact"] == 50


def test_missing_predictions_are_named():
    examples = [QaExample(f"id{i}", i, "?", "", (("x", 0),)) for i in range(7)]
    with pytest.raises(DataError, match=r"'id1', 'id2', 'id3', 'id4', 'id5' and 1 more: no prediction"):
        squad_v1(examples, {"id0": "x"})
    texts = {example.id: "x" for example in examples}
    with pytest.raises(DataError, match="question 'id0': no null score"):
        squad_v2(examples, texts, {f"id{i}": 0.0 for i in range(1, 7)})
    with pytest.raises(DataError, match="'q': no answer"):
        squad_v1([QaExample("q", 1, "?", "")], {"q": "x"})
    for score in (squad_v1, squad_v2):
        with pytest.raises(DataError, match="no examples"):
            score([], {})
