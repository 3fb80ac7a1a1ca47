"""Answers from logits, held against trying every span of every window; the round trip from answers and back."""

import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.tasks.answers import answer_of, answers_of, with_threshold
from pmlm_core.tasks.base import Answer, BadRow, QaExample
from pmlm_core.tasks.encode_qa import encode_qa
from pmlm_core.tasks.registry import get_task

V1, V2 = get_task("squad1.1"), get_task("squad2.0")
WORDS = [
    "Time",
    "the  Machine",
    "½",
    "ﬁne",
    "cafe\u0301",
    "…",
    "1893-94",
    "a",
    "(b)",
    "\n\n",
    "ｃａｔ",
    "☃",
    "chair,",
    "\u200b",
]


@pytest.fixture(scope="module")
def tokenizer(sample_tokenizer_dir: str) -> TextTokenizer:
    return TextTokenizer.load(sample_tokenizer_dir)


def encoded(tokenizer, example: QaExample, max_length: int = 512, stride: int = 128, *, training: bool = False):
    return encode_qa([example], tokenizer, V2, max_length, stride, training=training)


def every_span(context, windows, logits, longest):
    """{text: score} of the best span with each text, by definition."""

    def passage(window):
        return [i for i, offset in enumerate(window["offsets_start"]) if offset >= 0]

    def context_of(window, token):  # of a passage token in a window, as in run_squad's _check_is_max_context
        inside = len(passage(window))
        at = token - window["passage_token"]
        return min(at, inside - 1 - at) + 0.01 * inside if 0 <= at < inside else -1

    best: dict[str, float] = {}
    for number, (window, (start, end)) in enumerate(zip(windows, logits, strict=True)):
        places = passage(window)
        for i in places:
            token = window["passage_token"] + i - places[0]
            here = [context_of(other, token) for other in windows]
            if here.index(max(here)) != number:
                continue
            for j in range(i, min(i + longest, places[-1] + 1)):
                text = context[window["offsets_start"][i] : max(0, window["offsets_end"][j])].rstrip()
                if text:
                    best[text] = max(best.get(text, -math.inf), float(start[i]) + float(end[j]))
    return best


@settings(max_examples=60)
@given(
    words=st.lists(st.sampled_from(WORDS), max_size=25),
    room=st.integers(3, 40),
    stride=st.integers(1, 20),
    longest=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_the_best_spans_are_those_of_trying_all(tokenizer, words, room, stride, longest, seed):
    context = " ".join(words)
    windows = encoded(tokenizer, QaExample("q", 1, "chair", context), 8 + room, stride)
    draw = np.random.default_rng(seed)
    logits = [tuple(draw.normal(size=(2, len(w["input_ids"]) + 3)).astype(np.float32)) for w in windows]
    expected = every_span(context, windows, logits, longest)
    answer = answer_of(context, windows, logits, can_be_unanswerable=True, max_answer_tokens=longest, n_best=5)
    null = min(float(start[0]) + float(end[0]) for start, end in logits)
    assert answer.null_score == pytest.approx(null)
    spans = [entry for entry in answer.n_best if entry["text"]]
    ranked = sorted(expected.items(), key=lambda pair: -pair[1])[:5]
    assert [entry["text"] for entry in spans] == [text for text, _ in ranked]
    assert [entry["score"] for entry in spans] == pytest.approx([score for _, score in ranked])
    assert all(context.startswith(entry["text"], entry["start"]) for entry in spans)
    assert sum(entry["probability"] for entry in answer.n_best) == pytest.approx(1)
    assert [e["score"] for e in answer.n_best] == sorted((e["score"] for e in answer.n_best), reverse=True)
    if not expected:
        assert (answer.text, answer.start, answer.score) == ("", -1, null)
    else:
        assert (answer.text, answer.score) == (ranked[0][0], pytest.approx(ranked[0][1]))
    json.dumps(answer.n_best)


def pointing(windows) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits of a model that has learnt the training positions by heart."""
    out = []
    for window in windows:
        start, end = np.zeros((2, len(window["input_ids"])))
        start[window["start_position"]] = end[window["end_position"]] = 10
        out.append((start, end))
    return out


@settings(max_examples=100)
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), stride=st.integers(1, 30), data=st.data())
def test_an_answer_between_tokens_comes_back_to_the_letter(tokenizer, words, stride, data):
    context = " ".join(words)
    ids, starts, ends = tokenizer.encode_with_offsets(context)
    standing = [i for i in range(len(ids)) if starts[i] < ends[i]]
    if not standing:
        return
    first = data.draw(st.sampled_from(standing))
    last = data.draw(st.sampled_from([i for i in standing if first <= i < first + 8]))
    text = context[starts[first] : ends[last]]
    example = QaExample("q", 1, "chair", context, ((text, int(starts[first])),), False)
    windows = encoded(tokenizer, example, 48, stride, training=True)
    assert any(window["start_position"] for window in windows)
    assert answer_of(context, windows, pointing(windows), can_be_unanswerable=True).text == text


def test_a_token_starts_an_answer_where_it_has_most_context(tokenizer):
    context = " ".join(["chair"] * 3 + ["Time"] + ["chair"] * 12)
    example = QaExample("q", 1, "a", context, (("Time", context.index("Time")),), False)
    windows = encoded(tokenizer, example, 14, 2, training=True)
    holding = [number for number, window in enumerate(windows) if window["start_position"]]
    assert len(holding) > 1
    scores = []
    for number in holding:
        logits = pointing(windows)
        for other in holding:
            if other != number:
                logits[other] = (np.zeros_like(logits[other][0]), np.zeros_like(logits[other][1]))
        scores.append(answer_of(context, windows, logits, can_be_unanswerable=False).n_best[0]["score"])
    assert scores.count(20.0) == 1


def test_null_is_the_least_over_windows_and_threshold_decides(tokenizer):
    context = "the chair " * 30
    windows = encoded(tokenizer, QaExample("q", 1, "a", context), 30, 10)
    assert len(windows) > 2
    logits = [(np.zeros(30), np.zeros(30)) for _ in windows]
    for number, (start, end) in enumerate(logits):
        start[0], end[0] = 3.0 + number, 1.0
    answer = answer_of(context, windows, logits, can_be_unanswerable=True)
    assert (answer.null_score, answer.score) == (4.0, 0.0)
    assert with_threshold(answer, 3.9) == Answer("", -1, 0.0, 4.0, answer.n_best)
    assert with_threshold(answer, 4.0) is answer
    assert answer.n_best[0]["text"] == ""
    known = answer_of(context, windows, logits, can_be_unanswerable=False)
    assert known.null_score is None
    assert with_threshold(known, -99) is known
    assert all(entry["text"] for entry in known.n_best)


def test_answers_go_to_their_examples(tokenizer):
    answers = {"the Time " * 40: "the Time", "a chair": "chair", "": None}
    examples = [
        QaExample(str(i), i, "what", context, ((text, context.index(text)),) if text else (), text is None)
        for i, (context, text) in enumerate(answers.items())
    ]
    windows = encode_qa(examples, tokenizer, V2, 40, 20, training=True)
    assert len(windows) > 4
    got = answers_of(examples, windows, pointing(windows), can_be_unanswerable=False)
    assert [answer.text for answer in got] == ["the Time", "chair", ""]
    shuffled = [2, 0, 1]
    renumbered = [{**w, "example": shuffled.index(w["example"])} for w in windows]
    again = answers_of([examples[i] for i in shuffled], renumbered, pointing(windows), can_be_unanswerable=False)
    assert [answer.text for answer in again] == [got[i].text for i in shuffled]


@pytest.mark.skipif("PMLM_DATA" not in os.environ, reason="the real SQuAD is looked for in $PMLM_DATA/squad")
def test_answers_of_squad_come_back(tokenizer):
    read = V1.read(str(Path(os.environ["PMLM_DATA"]) / "squad"), "train")
    examples = [e for e in itertools.islice(read, 2000) if not isinstance(e, BadRow)]
    windows = encode_qa(examples, tokenizer, V1, 384, 128, training=True)
    got = answers_of(examples, windows, pointing(windows), can_be_unanswerable=False, max_answer_tokens=384)
    exact = sum(answer.text == example.answers[0][0] for answer, example in zip(got, examples, strict=True))
    assert exact / len(examples) > 0.97
