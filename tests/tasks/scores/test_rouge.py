"""ROUGE on cases computed by hand and on Lin's (2004) example of the union of common subsequences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.errors import DataError
from pmlm_core.tasks.scores.rouge import rouge, rouge_l_captions

REFERENCE = "w1 w2 w3 w4 w5"
# Lin's two candidate sentences, the second first, so that they differ from one long sentence.
LINES = "w1 w3 w8 w9 w5\nw1 w2 w6 w7 w8"


def test_by_hand():
    """Bigrams shared: "police killed" and "the gunman", 2 of 3; the longest common subsequence has 2 of 4 words."""
    figures = rouge(["the gunman police killed"], [["police killed the gunman"]])
    assert figures == pytest.approx({"rouge1": 100, "rouge2": 200 / 3, "rougeL": 50, "rougeLsum": 50})


def test_precision_and_recall_weigh_the_same():
    assert rouge(["a b"], [["a b c d e f"]])["rouge1"] == pytest.approx(100 * 2 * 1 * (1 / 3) / (4 / 3))


def test_stems_case_and_punctuation():
    assert rouge(["POLICE-KILLED; the gunmen..."], [["police kill the gunmen"]])["rouge2"] == pytest.approx(100)


@pytest.mark.parametrize("text", [LINES, LINES.replace("\n", ". ") + ".", LINES.replace("\n", " . ") + " ."])
def test_sentences_of_a_summary(text):
    """Union of common subsequences: w1 w2 w3 w5, 4 of 5 words and of 10; as one sentence w1 w3 w5."""
    figures = rouge([text], [[REFERENCE]])
    assert figures["rougeLsum"] == pytest.approx(100 * 2 * 0.4 * 0.8 / 1.2)
    assert figures["rougeL"] == pytest.approx(100 * 2 * 0.3 * 0.6 / 0.9)


def test_line_breaks_are_kept():
    """A text with line breaks is not cut further: these are two sentences, not four."""
    cut = rouge(["bee. ant. dog. cow."], [["ant bee\ncow dog"]])
    kept = rouge(["bee. ant.\ndog. cow."], [["ant bee\ncow dog"]])
    assert (cut["rougeLsum"], kept["rougeLsum"]) == (100, 50)


def test_best_reference_for_each_figure():
    figures = rouge(["a b c d"], [["d c b a", "a b x y"]])
    assert (figures["rouge1"], figures["rouge2"]) == pytest.approx((100, 100 / 3))


def test_mean_over_examples_and_empty_predictions():
    assert rouge(["", "x y", " \n"], [["x y"], ["x y"], ["x y"]])["rouge1"] == pytest.approx(100 / 3)


def test_other_scripts_are_told(caplog):
    """The usual tokenization drops what is not a-z or 0-9: accents cut words, other scripts score 0 with a warning."""
    assert rouge(["caf"], [["café"]])["rouge1"] == 100
    assert not caplog.records
    assert rouge(["猫が好き"], [["猫が好き"]])["rouge1"] == 0
    assert "no reference has a letter a-z" in caplog.text


def test_captions_by_hand():
    """Common subsequence 3 of 4 tokens found and of 6 wanted; F with beta 1.2."""
    found, wanted = "Who was king?", "who was the king ? then"
    assert rouge_l_captions([found], [[wanted]]) == pytest.approx(100 * 2.44 * 1 * (4 / 6) / (4 / 6 + 1.44))
    found = "Who was queen?"
    assert rouge_l_captions([found], [[wanted]]) == pytest.approx(100 * 2.44 * 0.75 * 0.5 / (0.5 + 1.44 * 0.75))
    assert rouge_l_captions([""], [["x", ""]]) == 0


WORDY = st.lists(st.sampled_from("abcd"), min_size=1, max_size=7).map(" ".join)


@given(st.lists(st.tuples(WORDY, st.lists(WORDY, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_captions_equal_coco_caption(pairs):
    rouge_of_captions = pytest.importorskip("pycocoevalcap.rouge.rouge", reason="needs pip install 'pmlm[meteor]'")
    found, references = (
        {i: [text] for i, (text, _) in enumerate(pairs)},
        {i: texts for i, (_, texts) in enumerate(pairs)},
    )
    wanted, _ = rouge_of_captions.Rouge().compute_score(references, found)
    assert rouge_l_captions([text for text, _ in pairs], [texts for _, texts in pairs]) == pytest.approx(100 * wanted)


@pytest.mark.parametrize("score", [rouge, rouge_l_captions])
def test_wrong_input(score):
    with pytest.raises(DataError, match="1 predictions for 2 examples"):
        score(["x"], [["x"], ["y"]])
    with pytest.raises(DataError, match=r"example 1 .* no list of references"):
        score(["x", "y"], [["x"], []])
    with pytest.raises(DataError, match=r"example 0 .* no list of references"):
        score(["x"], ["x"])
