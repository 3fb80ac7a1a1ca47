"""What a paired test is computed from makes the task's own figures, over all examples and over resamples."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Answer, QaExample, SourceTarget, Task, TextExample
from pmlm_core.tasks.registry import get_task
from pmlm_core.tasks.scores.paired import content, figure


@pytest.fixture(scope="module", autouse=True)
def no_java():
    """METEOR, which cannot be expressed, is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        yield


WORDS = st.lists(st.sampled_from(["the", "old", "Ship", "house", "."]), min_size=1, max_size=9).map(" ".join)
NUMBERS = st.integers(-12, 12).map(lambda number: number / 4)


@st.composite
def scored(draw: Any, task: Task, repeated: bool = False) -> tuple[list[Any], dict[str, Any]]:
    """Labelled examples and predictions for them; `repeated`: of generation, several of one source."""
    examples: list[Any] = []
    predictions: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 8))):
        name = f"id{number}"
        if task.kind == "classification":
            labels = st.sampled_from(task.labels)
            examples.append(TextExample(name, number, "a", "b", draw(labels)))
            predictions[name] = draw(labels)
        elif task.kind == "regression":
            examples.append(TextExample(name, number, "a", "b", draw(NUMBERS)))
            predictions[name] = draw(NUMBERS)
        elif task.kind == "question_answering":
            answers = draw(st.lists(WORDS, min_size=0 if task.can_be_unanswerable else 1, max_size=3))
            found = tuple((text, 0) for text in answers)
            examples.append(QaExample(name, number, "q", "c", found, not answers))
            predictions[name] = Answer(draw(st.just("") | WORDS), 0, draw(NUMBERS), draw(NUMBERS))
        else:
            references = draw(st.lists(WORDS, min_size=1, max_size=3))
            source = draw(st.sampled_from(["s", "S", "t"])) if repeated else name
            examples.append(SourceTarget(name, number, source, references[0], tuple(references)))
            predictions[name] = draw(WORDS)
    return examples, predictions


def resampled(examples: list[Any], predictions: dict[str, Any], places: list[int]) -> tuple[list[Any], dict[str, Any]]:
    """The examples at these places, each a new one."""
    chosen = []
    for number, place in enumerate(places):
        other = {"source": f"new{number}"} if isinstance(examples[place], SourceTarget) else {}
        chosen.append(replace(examples[place], id=f"new{number}", **other))
    return chosen, {f"new{number}": predictions[examples[place].id] for number, place in enumerate(places)}


CASES = {
    "cola": {"matthews"},
    "mrpc": {"accuracy", "f1"},
    "classification": {"accuracy", "f1_macro"},
    "stsb": {"pearson", "spearman"},
    "squad1.1": {"exact_match", "f1"},
    "squad2.0": {"exact", "f1"},
    "xsum": {"rouge1", "rouge2", "rougeL", "rougeLsum"},
    "squad_qg": {"bleu4", "rougeL"},
}


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("name", CASES)
def test_figures_are_those_of_the_task(name: str) -> None:
    task = get_task(name, labels=["a", "b", "c"]) if name == "classification" else get_task(name)

    @given(st.data())
    @settings(max_examples=30)
    def check(data: Any) -> None:
        examples, predictions = data.draw(scored(task))
        own = task.score(examples, predictions)
        made = json.loads(json.dumps(content(task, "dev", "f", examples, predictions, own)))
        assert CASES[name] <= set(made["figures"]) <= set(own)
        assert task.metric in made["figures"]
        assert made["ids"] == [example.id for example in examples]
        places = st.lists(st.integers(0, len(examples) - 1), min_size=5, max_size=5)
        drawn = np.array(data.draw(st.lists(places, min_size=2, max_size=2)))
        for figure_name, entry in made["figures"].items():
            assert figure(figure_name, entry) == pytest.approx(own[figure_name], abs=1e-9)
            found = figure(figure_name, entry, drawn)
            assert found.shape == (2,)
            assert found.tolist() == [figure(figure_name, entry, row) for row in drawn]
            anew = task.score(*resampled(examples, predictions, drawn[1].tolist()))
            assert found[1] == pytest.approx(anew[figure_name], abs=1e-9)

    check()


@given(scored(get_task("squad_qg"), repeated=True))
@settings(max_examples=30)
def test_questions_of_one_source_are_one(drawn: tuple[list[Any], dict[str, Any]]) -> None:
    """As the task scores them, so that resamples draw sources; "ids" are those of their last questions."""
    examples, predictions = drawn
    own = get_task("squad_qg").score(examples, predictions)
    made = content(get_task("squad_qg"), "dev", "f", examples, predictions, own)
    assert sorted(made["ids"]) == sorted({example.source.lower(): example.id for example in examples}.values())
    for name, entry in made["figures"].items():
        assert figure(name, entry) == pytest.approx(own[name], abs=1e-9)


def test_only_labelled_examples_take_part() -> None:
    examples = [TextExample("a", 1, "x", "y", "1"), TextExample("b", 2, "x", "y")]
    made = content(get_task("mrpc"), "dev", "f", examples, {"a": "1", "b": "0"}, ["accuracy", "f1", "meteor"])
    assert made == {
        "format_version": 1,
        "task": "mrpc",
        "split": "dev",
        "metric": "accuracy",
        "examples": "f",
        "ids": ["a"],
        "figures": {
            "accuracy": {"kind": "mean", "values": [100.0]},
            "f1": {"kind": "labels", "gold": ["1"], "predicted": ["1"]},
        },
    }


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(DataError, match="newer version"):
        figure("accuracy", {"kind": "quantile", "values": [1.0]})
    with pytest.raises(DataError, match="'accuracy' of kind 'labels'"):
        figure("accuracy", {"kind": "labels", "gold": ["1"], "predicted": ["1"]})
    with pytest.raises(DataError, match="no examples"):
        figure("accuracy", {"kind": "mean", "values": []})
