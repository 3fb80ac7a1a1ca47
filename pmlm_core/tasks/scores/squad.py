"""SQuAD's exact match and F1, by the published rules of evaluate-v1.1 and evaluate-v2.0 (Rajpurkar et al., 2016, 2018).

Texts are compared in lower case, without ASCII punctuation and the words "a", "an", "the", white space made single.
Exact match asks for the same text, F1 counts shared tokens; the best over a question's answers counts. The two scripts
differ where a text has no token left: in v1.1 its F1 is 0, in v2.0 it is 1 if the other has none either. The names of
the figures are the scripts'.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import QaExample

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize(text: str) -> str:
    """Text as it is compared.

    >>> normalize("The  U.S.A., an entry")
    'usa entry'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_v1(examples: Sequence[QaExample], texts: Mapping[str, str]) -> dict[str, float]:
    """Figures "exact_match" and "f1" of v1.1.

    Args:
        texts: predicted answer by the question's id; others than the examples' are passed over.

    Raises:
        DataError: no examples; a question without an answer or a prediction, with their ids.
    """
    _check(examples, texts)
    if unknown := [example.id for example in examples if not example.answers]:
        raise DataError(f"{_few(unknown)}: no answer to score against; v1.1 has one for every question")
    points = [points_v1(example, texts[example.id]) for example in examples]
    exact, f1 = (sum(values) for values in zip(*points, strict=True))
    return {"exact_match": 100 * exact / len(examples), "f1": 100 * f1 / len(examples)}


def squad_v2(
    examples: Sequence[QaExample], texts: Mapping[str, str], null_scores: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Figures of v2.0: "exact", "f1", "total", the same as "HasAns_…" and "NoAns_…" where there are such questions.

    Args:
        texts: predicted answer by the question's id, "" for unanswerable.
        null_scores: how much rather than `texts` the answer is "none", by id: the null score less the best span's. With
            them come "best_exact", "best_f1" and their thresholds "best_exact_thresh", "best_f1_thresh". Only a text
            that is not "" can be made to count by a threshold, so give the best spans to search the whole range.

    Raises:
        DataError: no examples; a question without a prediction or a null score, with their ids.
    """
    _check(examples, texts)
    if null_scores is not None and (missing := [e.id for e in examples if e.id not in null_scores]):
        raise DataError(f"{_few(missing)}: no null score; give one for every question or none at all")
    scored = [points_v2(example, texts[example.id]) for example in examples]
    figures = _means(scored)
    for name, answerable in (("HasAns", True), ("NoAns", False)):
        part = [pair for example, pair in zip(examples, scored, strict=True) if bool(example.answers) is answerable]
        if part:
            figures |= {f"{name}_{key}": value for key, value in _means(part).items()}
    if null_scores is not None:
        for place, name in enumerate(("exact", "f1")):
            points = [pair[place] for pair in scored]
            figures[f"best_{name}"], figures[f"best_{name}_thresh"] = _best_threshold(
                examples, texts, points, null_scores
            )
    return figures


def _best_threshold(
    examples: Sequence[QaExample], texts: Mapping[str, str], points: Sequence[float], null_scores: Mapping[str, float]
) -> tuple[float, float]:
    """The best mean over thresholds and the first threshold that reaches it.

    From "no question answered" (threshold 0, by the script's rule) the threshold rises past one question after the
    other, in the order of null scores and, among equal ones, of the examples.
    """
    total = best = float(sum(not example.answers for example in examples))
    threshold = 0.0
    for example, point in sorted(zip(examples, points, strict=True), key=lambda pair: null_scores[pair[0].id]):
        if example.answers:
            total += point
        elif texts[example.id]:
            total -= 1
        if total > best:
            best, threshold = total, null_scores[example.id]
    return 100 * best / len(examples), threshold


def points_v1(example: QaExample, text: str) -> tuple[float, float]:
    """Exact match and F1 of one answer under v1.1, 0 to 1; the question has accepted answers."""
    answers = [answer for answer, _ in example.answers]
    exact = max(_exact(answer, text) for answer in answers)
    return exact, max(_f1(answer, text, both_empty=0.0) for answer in answers)


def points_v2(example: QaExample, text: str) -> tuple[float, float]:
    """Exact match and F1 of one answer under v2.0, 0 to 1.

    Accepted answers without a token do not count unless there is no other.
    """
    answers = [answer for answer, _ in example.answers if normalize(answer)] or [""]
    exact = max(_exact(answer, text) for answer in answers)
    return exact, max(_f1(answer, text, both_empty=1.0) for answer in answers)


def _exact(answer: str, text: str) -> float:
    return float(normalize(answer) == normalize(text))


def _f1(answer: str, text: str, *, both_empty: float) -> float:
    wanted, found = normalize(answer).split(), normalize(text).split()
    if not wanted and not found:
        return both_empty
    shared = sum((Counter(wanted) & Counter(found)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(found), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _means(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    number = len(points)
    return {
        "exact": 100 * sum(exact for exact, _ in points) / number,
        "f1": 100 * sum(f1 for _, f1 in points) / number,
        "total": float(number),
    }


def _check(examples: Sequence[QaExample], texts: Mapping[str, str]) -> None:
    if not examples:
        raise DataError("there are no examples to score")
    if missing := [example.id for example in examples if example.id not in texts]:
        raise DataError(f"{_few(missing)}: no prediction; predict the whole split")


def _few(ids: Sequence[str]) -> str:
    """Say which questions, at most five of them."""
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return f"question{'s' if len(ids) > 1 else ''} {', '.join(repr(each) for each in ids[:5])}{more}"
