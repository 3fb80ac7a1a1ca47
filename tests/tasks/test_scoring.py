"""A task's figures: examples and predictions paired by id, unlabelled examples left out, every figure described."""

import pytest

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Answer, QaExample, SourceTarget, TextExample
from pmlm_core.tasks.registry import TASKS, get_task
from pmlm_core.tasks.scoring import is_labelled


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR's program takes half a minute to start; its own tests have it."""
    monkeypatch.setenv("PATH", "")


def labelled(*labels):
    return [TextExample(str(i), i + 2, "a", "b", label) for i, label in enumerate(labels)]


def test_pairs_are_made_by_id():
    examples = labelled("1", "0", "1", "0")
    predictions = {"3": "0", "2": "1", "1": "1", "0": "1", "unused": "0"}
    assert get_task("mrpc").score(examples, predictions) == pytest.approx({"accuracy": 75.0, "f1": 80.0})
    assert get_task("cola").score(examples, predictions)["matthews"] == pytest.approx(100 / 3**0.5)


def test_regression():
    figures = get_task("stsb").score(labelled(1.0, 2.0, 4.0), {"0": 0.0, "1": 1.0, "2": 3.0})
    assert figures == pytest.approx({"pearson": 100.0, "spearman": 100.0})


def test_unlabelled_examples_take_no_part():
    examples = [*labelled("entailment"), TextExample("x", 9, "a", "b")]
    assert get_task("rte").score(examples, {"0": "entailment"}) == {"accuracy": 100.0}
    with pytest.raises(DataError, match="none of the examples has a label"):
        get_task("rte").score(examples[1:], {})
    with pytest.raises(DataError, match="no prediction for example '0'"):
        get_task("rte").score(examples, {"x": "entailment"})


def test_what_is_labelled():
    assert is_labelled(TextExample("a", 1, "t", label=0.0))
    assert not is_labelled(TextExample("a", 1, "t"))
    assert is_labelled(QaExample("a", 1, "q", "c", (), True))
    assert not is_labelled(QaExample("a", 1, "q", "c"))
    assert not is_labelled(SourceTarget("a", 1, "s"))


ANSWERABLE = QaExample("a", 1, "q", "Ann met Bob.", (("Ann", 0),), False)
UNANSWERABLE = QaExample("b", 2, "q", "Ann met Bob.", (), True)


def test_squad_1():
    figures = get_task("squad1.1").score([ANSWERABLE], {"a": Answer("Ann met", 0, 3.0)})
    assert figures == pytest.approx({"exact_match": 0.0, "f1": 200 / 3})


def test_squad_2_finds_the_threshold_whether_or_not_one_was_applied():
    """At threshold 0 both are called unanswerable; a threshold from 1 to 3 would tell them apart."""
    spans = ({"text": "Ann", "start": 0, "score": 1.0},)
    raw = {"a": Answer("Ann", 0, 1.0, 2.0, spans), "b": Answer("Ann", 0, 1.0, 4.0, spans)}
    applied = {key: Answer("", -1, answer.score, answer.null_score, spans) for key, answer in raw.items()}
    task = get_task("squad2.0")
    figures = {name: task.score([ANSWERABLE, UNANSWERABLE], p) for name, p in (("raw", raw), ("applied", applied))}
    assert (figures["raw"]["f1"], figures["raw"]["NoAns_f1"]) == (50.0, 0.0)
    assert (figures["applied"]["f1"], figures["applied"]["NoAns_f1"]) == (50.0, 100.0)
    for each in figures.values():
        assert (each["best_f1"], each["best_f1_thresh"]) == (100.0, 1.0)


def test_generation():
    examples = [SourceTarget("x", 1, "s", "Two cats sat down .", ("Two cats sat down .", "other"))]
    assert get_task("xsum").score(examples, {"x": "two cats sat down"})["rougeLsum"] == pytest.approx(100.0)
    figures = get_task("squad_qg").score(examples, {"x": "Two cats sat down ."})
    assert set(figures) == {"bleu4", "rougeL"}
    assert figures["bleu4"] == pytest.approx(100.0)
    assert figures["rougeL"] == pytest.approx(100.0)


REPEATED = [
    SourceTarget("1", 1, "Ann [SEP] Ann met Bob.", references=("who met bob today ?",)),
    SourceTarget("2", 2, "Bob [SEP] Ann met Bob.", references=("whom did ann meet ?",)),
    SourceTarget("3", 3, "ann [SEP] Ann met Bob. ", references=("what is the name of his friend ?",)),
    SourceTarget("4", 4, "Ann [SEP] Eve met Ann.", references=("whom did eve meet then ?",)),
]


@pytest.mark.parametrize("name", ["squad_qg", "squad_qg_reversed"])
def test_questions_of_one_source_are_one_example(name):
    """Du's evaluation: the source's last prediction against all of its questions; each other one has no say."""
    texts = {"1": "nonsense", "2": "whom did ann meet ?", "3": "who met bob today ?", "4": "whom did eve meet then ?"}
    figures = get_task(name).score(REPEATED, texts)
    assert figures == pytest.approx({"bleu4": 100.0, "rougeL": 100.0})
    swapped = get_task(name).score(REPEATED, texts | {"1": texts["3"], "3": "nonsense"})
    assert swapped["rougeL"] == pytest.approx(200 / 3)


def test_other_generations_are_scored_each_by_itself():
    texts = {example.id: example.references[0] for example in REPEATED}
    assert get_task("xsum").score(REPEATED, texts | {"1": "nonsense"})["rougeLsum"] == pytest.approx(75.0)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_how_it_scores(name):
    task = get_task(name, labels=["0", "1"]) if name == "classification" else get_task(name)
    described = task.scorers()
    assert described
    assert all(described.values())
    if task.kind == "generation":
        examples: list = [SourceTarget("0", 1, "s", "one two three four", ("one two three four",))]
        predictions: dict = {"0": "one two three four"}
    elif task.kind == "question_answering":
        examples, predictions = [ANSWERABLE], {"a": Answer("Ann", 0, 1.0)}
    else:
        labels = task.labels or (1.0, 2.0, 3.0)
        examples = labelled(*labels)
        predictions = {example.id: example.label for example in examples}
    assert task.score(examples, predictions)[task.metric] == pytest.approx(100.0)
