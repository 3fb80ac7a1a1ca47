"""BLEU-4 by hand, against coco-caption's, and the tokens it is computed over."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pmlm_core.errors import DataError
from pmlm_core.tasks.scores.bleu import bleu4
from pmlm_core.tasks.scores.tokens import question_tokens

LAKE = "what is the name of the lake ?"


def test_by_hand():
    """7 of 8 words, 5 of 7 pairs, 4 of 6, 3 of 5: their product is 1/4."""
    assert bleu4(["what is the name of the river ?"], [[LAKE]]) == pytest.approx(100 * 0.25**0.25)


def test_brevity():
    assert bleu4(["what is the name of the"], [[LAKE]]) == pytest.approx(100 * math.exp(1 - 8 / 6))


def test_corpus_not_mean():
    """Counts are added up first: 4-grams 5 of 6; the second text alone has none in common."""
    counts = (8 + 4) / 12 * (7 + 2) / 10 * (6 + 1) / 8 * (5 + 0) / 6
    assert bleu4([LAKE, "a b c d"], [[LAKE], ["a b c x d"]]) == pytest.approx(
        100 * math.exp(1 - 13 / 12) * counts**0.25
    )


def test_no_smoothing():
    assert bleu4(["the cat sat on the mat"], [["the cat is on the mat"]]) == 0
    assert bleu4([""], [["x"]]) == 0


def test_closest_reference_of_several():
    """Of references with 4 and 8 words, 4 is as close to 6 as 8: the shorter counts, so there is no brevity penalty."""
    found = "what is the name of the"
    assert bleu4([found], [[LAKE, "w x y z"]]) == pytest.approx(100)
    both = bleu4([found, LAKE], [[LAKE, "w x y z"], [LAKE]])
    assert both == pytest.approx(100)


WORDY = st.lists(st.sampled_from("abc"), min_size=1, max_size=9).map(" ".join)


@given(st.lists(st.tuples(WORDY, st.lists(WORDY, min_size=1, max_size=3)), min_size=2, max_size=4))
def test_equals_coco_caption(pairs):
    """Which adds a trifle to avoid dividing by zero, so that it differs where there is no common 4-gram."""
    coco = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason="needs pip install 'pmlm[meteor]'")
    found = bleu4([text for text, _ in pairs], [texts for _, texts in pairs])
    assume(found > 0)
    scorer = coco.BleuScorer(n=4)
    for pair in pairs:
        scorer += pair
    assert found == pytest.approx(100 * scorer.compute_score(option="closest")[0][3], rel=1e-6)


@pytest.mark.parametrize(
    ("published", "written"),
    [
        ("why do n't they go ?", "Why don't they go?"),
        ("why ca n't they ?", "why can ' t they?"),
        ("what is `` a -lrb- b -rrb- '' ?", 'What is "a (b)"?'),
        ("the u.s. 's 3,000 at&amp;t", "The U.S.'s 3,000 AT & T"),
        ("in `` it '' , can not you ?", "In ''it'', cannot you?"),
        ("who was ödön ?", "Who was Ödön?"),
        ("rock 'n' roll", "rock ‘n’ roll"),
    ],
)
def test_spellings_that_count_as_one(published, written):
    assert question_tokens(published) == question_tokens(written)


def test_tokens():
    assert question_tokens(" Isn't\tIT\n$5.50–6 ? ") == ["isn", "'", "t", "it", "$", "5", ".", "50", "–", "6", "?"]


def test_wrong_input():
    with pytest.raises(DataError, match="2 predictions for 1 examples"):
        bleu4(["x", "y"], [["x"]])
    with pytest.raises(DataError, match=r"example 0 .* no list of references"):
        bleu4(["x"], [[]])
