"""From the logits of an example's windows to an answer, cut out of the original passage.

A span's score is its start logit plus its end logit. A token that several windows hold is taken as a start only in the
window where it has most context on its poorer side, as in BERT's run_squad.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmlm_core.tasks.base import Answer, QaExample

MAX_ANSWER_TOKENS = 30
N_BEST = 20

Window = Mapping[str, Any]
Logits = tuple[np.ndarray, np.ndarray]
"""Start and end logits of a window, at least as long as it."""


def answers_of(
    examples: Sequence[QaExample],
    windows: Iterable[Window],
    logits: Iterable[Logits],
    *,
    can_be_unanswerable: bool,
    max_answer_tokens: int = MAX_ANSWER_TOKENS,
    n_best: int = N_BEST,
) -> list[Answer]:
    """An answer for every example, in their order.

    Args:
        windows: features of `encode_qa`, whose "example" counts from the first of `examples`.
        logits: of every window.
    """
    grouped: list[tuple[list[Window], list[Logits]]] = [([], []) for _ in examples]
    for window, pair in zip(windows, logits, strict=True):
        own_windows, own_logits = grouped[window["example"]]
        own_windows.append(window)
        own_logits.append(pair)
    return [
        answer_of(
            example.context,
            *group,
            can_be_unanswerable=can_be_unanswerable,
            max_answer_tokens=max_answer_tokens,
            n_best=n_best,
        )
        for example, group in zip(examples, grouped, strict=True)
    ]


def answer_of(
    context: str,
    windows: Sequence[Window],
    logits: Sequence[Logits],
    *,
    can_be_unanswerable: bool,
    max_answer_tokens: int = MAX_ANSWER_TOKENS,
    n_best: int = N_BEST,
) -> Answer:
    """The best span over all windows of a passage, whatever the null score: `with_threshold` compares the two.

    Args:
        can_be_unanswerable: whether to give a null score, the least start plus end logit at [SOS] over the windows.
        max_answer_tokens: length of a span.
        n_best: spans with different texts to keep; their probabilities, and that of "" if the question can be
            unanswerable, sum to 1.

    Returns:
        The answer; "" at -1, with the null score or 0 for a score, from a passage without a word.
    """
    null_score = None
    if can_be_unanswerable:
        null_score = min((float(start[0]) + float(end[0]) for start, end in logits), default=0.0)
    spans = _best_spans(context, windows, logits, max_answer_tokens, n_best)
    entries: list[dict[str, Any]] = [{"text": span.text, "start": span.start, "score": span.score} for span in spans]
    if null_score is not None:
        entries.append({"text": "", "start": -1, "score": null_score})
        entries.sort(key=lambda entry: -entry["score"])
    for entry, probability in zip(entries, _softmax([entry["score"] for entry in entries]), strict=True):
        entry["probability"] = probability
    if not spans:
        return Answer("", -1, null_score or 0.0, null_score, tuple(entries))
    return Answer(spans[0].text, spans[0].start, spans[0].score, null_score, tuple(entries))


def with_threshold(answer: Answer, threshold: float = 0.0) -> Answer:
    """Unanswerable if the null score is above the best span's by more than `threshold`.

    >>> with_threshold(Answer("a cat", 4, 2.0, 2.5), 0.0).text, with_threshold(Answer("a cat", 4, 2.0, 2.5), 1.0).text
    ('', 'a cat')
    """
    if answer.null_score is None or answer.null_score - answer.score <= threshold:
        return answer
    return replace(answer, text="", start=-1)


@dataclass(frozen=True)
class _Span:
    text: str
    start: int
    score: float


def _best_spans(
    context: str, windows: Sequence[Window], logits: Sequence[Logits], max_answer_tokens: int, n_best: int
) -> list[_Span]:
    """Spans with different texts, best first; of equal ones the first in the passage."""
    richest = _richest_windows(windows)
    found = []
    for number, (window, (start_N, end_N)) in enumerate(zip(windows, logits, strict=True)):
        starts, ends = np.asarray(window["offsets_start"]), np.asarray(window["offsets_end"])
        (passage,) = np.nonzero(starts >= 0)
        if not len(passage):
            continue
        first, stop = int(passage[0]), int(passage[-1]) + 1
        starts, ends = starts[first:stop], ends[first:stop]
        begin = int(window["passage_token"])
        may_start = richest[begin : begin + stop - first] == number
        from_L = np.where(may_start, np.asarray(start_N[first:stop], np.float64), -np.inf)
        to_L = np.asarray(end_N[first:stop], np.float64)
        # scores_LW[i, w] is the span from token i over w more; beyond the window there is nothing to end at.
        width = min(max_answer_tokens, len(to_L))
        padded = np.concatenate([to_L, np.full(width - 1, -np.inf)])
        scores_LW = from_L[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)
        padded_ends = np.concatenate([ends, np.zeros(width - 1, ends.dtype)])
        ends_LW = np.lib.stride_tricks.sliding_window_view(padded_ends, width)
        scores = np.where(ends_LW > starts[:, None], scores_LW, -np.inf).ravel()
        # Several spans may have one text: tokens that share a character, a word twice in the passage.
        keep = min(len(scores), 8 * n_best)
        best = np.argpartition(-scores, keep - 1)[:keep]
        best = best[scores[best] > -np.inf]
        found.append((scores[best], starts[best // width], padded_ends[best // width + best % width]))
    spans: dict[str, _Span] = {}
    if not found:
        return []
    scores, starts, ends = (np.concatenate(each) for each in zip(*found, strict=True))
    for at in np.lexsort((ends, starts, -scores)).tolist():
        start, end, score = int(starts[at]), int(ends[at]), float(scores[at])
        text = context[start:end].rstrip()
        if text and text not in spans:
            spans[text] = _Span(text, start, score)
            if len(spans) == n_best:
                break
    return list(spans.values())


def _richest_windows(windows: Sequence[Window]) -> np.ndarray:
    """For every passage token, the window with most context on the token's poorer side; of equal ones the longer, then
    the first."""
    spans = []
    for window in windows:
        length = int((np.asarray(window["offsets_start"]) >= 0).sum())
        spans.append((int(window["passage_token"]), length))
    tokens = max((first + length for first, length in spans), default=0)
    best, owner = np.full(tokens, -1.0), np.zeros(tokens, np.int64)
    for number, (first, length) in enumerate(spans):
        places = np.arange(length)
        context = np.minimum(places, length - 1 - places) + 0.01 * length
        better = np.flatnonzero(context > best[first : first + length]) + first
        best[better], owner[better] = context[better - first], number
    return owner


def _softmax(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    raised = np.exp(np.array(scores) - max(scores))
    return (raised / raised.sum()).tolist()
