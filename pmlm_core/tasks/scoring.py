"""A task's figures from its examples and predictions: pairs them and asks `scores`. Shares are in percent.

Examples without a label take no part. The scorers import large libraries, so they are imported when called.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Answer, Example, QaExample, SourceTarget, Task, TextExample
from pmlm_core.tasks.submission import prediction_of


def is_labelled(example: Example) -> bool:
    """Whether a prediction for this example can be scored."""
    if isinstance(example, TextExample):
        return example.label is not None
    if isinstance(example, QaExample):
        return bool(example.answers) or example.is_impossible is True
    return bool(example.references)


def score_labels(
    examples: Sequence[TextExample], predictions: Mapping[str, str], metrics: Sequence[str]
) -> dict[str, float]:
    """Figures of a classification; `metrics` of accuracy, f1 (of class "1"), f1_macro, matthews."""
    from pmlm_core.tasks.scores import classification

    scored = _labelled(examples)
    gold = [str(example.label) for example in scored]
    predicted = [str(prediction_of(example, predictions)) for example in scored]
    figures: dict[str, float] = {}
    for metric in metrics:
        match metric:
            case "accuracy":
                figures[metric] = classification.accuracy(gold, predicted)
            case "f1":
                figures[metric] = classification.f1_binary(gold, predicted, positive="1")
            case "f1_macro":
                figures[metric] = classification.f1_macro(gold, predicted)
            case "matthews":
                figures[metric] = classification.matthews(gold, predicted)
    return figures


def score_regression(
    examples: Sequence[TextExample], predictions: Mapping[str, float], metrics: Sequence[str] = ("pearson", "spearman")
) -> dict[str, float]:
    """Pearson's and Spearman's correlation."""
    from pmlm_core.tasks.scores import classification

    scored = _labelled(examples)
    gold = [float(example.label) for example in scored if example.label is not None]
    predicted = [float(prediction_of(example, predictions)) for example in scored]
    figures = classification.pearson_spearman(gold, predicted)
    return {metric: figures[metric] for metric in metrics}


def score_answers(
    examples: Sequence[QaExample], predictions: Mapping[str, Answer], *, can_be_unanswerable: bool
) -> dict[str, float]:
    """SQuAD's exact match and F1 of the answers as they stand; for v2.0 also by kind of question.

    With null scores v2.0 has the best figures that a threshold could reach, and the threshold, too. They are sought
    over the best spans, whether or not `answers.with_threshold` has put "" in their place.
    """
    from pmlm_core.tasks.scores import squad

    scored = _labelled(examples)
    answers = {example.id: prediction_of(example, predictions) for example in scored}
    texts = {key: answer.text for key, answer in answers.items()}
    if not can_be_unanswerable:
        return squad.squad_v1(scored, texts)
    figures = squad.squad_v2(scored, texts)
    odds = {key: a.null_score - a.score for key, a in answers.items() if a.null_score is not None}
    if len(odds) == len(answers):
        spans = {key: _best_span(answer) for key, answer in answers.items()}
        searched = squad.squad_v2(scored, spans, null_scores=odds)
        figures |= {key: value for key, value in searched.items() if key.startswith("best_")}
    return figures


def score_texts(
    examples: Sequence[SourceTarget], predictions: Mapping[str, str], *, question_generation: bool = False
) -> dict[str, float]:
    """ROUGE; for question generation BLEU-4, METEOR (where Java and its package are there) and captioning's ROUGE-L.

    Questions are scored `by_source`.
    """
    from pmlm_core.tasks.scores import bleu, meteor, rouge

    scored = by_source(_labelled(examples)) if question_generation else _labelled(examples)
    texts = [prediction_of(example, predictions) for example in scored]
    references = [list(example.references) for example in scored]
    if not question_generation:
        return rouge.rouge(texts, references)
    figures = {"bleu4": bleu.bleu4(texts, references), "rougeL": rouge.rouge_l_captions(texts, references)}
    if (value := meteor.meteor(texts, references)) is not None:
        figures["meteor"] = value
    return figures


def by_source(examples: Iterable[SourceTarget]) -> list[SourceTarget]:
    """Examples of one source as one, in the order in which sources first come; capitals make no other source.

    The evaluation of Du et al. (2017), as UniLM's authors call it (microsoft/unilm, unilm-v1/src/qg/eval.py): it keys
    everything by the lower-cased source, so that the last prediction of a source counts (here the last example's id,
    which is the one's) against all of its questions.

    >>> [(one.id, one.references) for one in by_source([
    ...     SourceTarget("1", 1, "Ann [SEP] Ann met Bob.", references=("who met bob ?",)),
    ...     SourceTarget("2", 2, "Bob [SEP] Ann met Bob.", references=("who was met ?",)),
    ...     SourceTarget("3", 3, "ann [SEP] Ann met Bob.", references=("who saw bob ?",)),
    ... ])]
    [('3', ('who met bob ?', 'who saw bob ?')), ('2', ('who was met ?',))]
    """
    found: dict[str, SourceTarget] = {}
    for example in examples:
        key = example.source.strip().lower()
        before = found[key].references if key in found else ()
        found[key] = replace(example, references=(*before, *example.references))
    return list(found.values())


def describe(*names: str) -> dict[str, str]:
    """Versions and options of the scorers of these names."""
    from pmlm_core.tasks.scores import versions

    return versions.describe(*names)


def _best_span(answer: Answer) -> str:
    """The best text that is not ""; "" where there is none."""
    return answer.text or next((str(each["text"]) for each in answer.n_best if each["text"]), "")


def _labelled(examples: Sequence[Any]) -> list[Any]:
    scored = [example for example in examples if is_labelled(example)]
    if not scored:
        raise DataError("none of the examples has a label to score against; choose a labelled split")
    return scored


# Figures by scorer, where the scorer's name is not the figure's; "squad" depends on the task.
FIGURES = {
    "rouge": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
    "rouge_l_captions": ("rougeL",),
    "bleu": ("bleu4",),
}
_SQUAD = {False: ("f1", "exact_match"), True: ("f1", "exact", "best_f1", "best_exact")}


def figures_of(task: Task) -> list[str]:
    """Names of the figures that a task is scored by, those that a run can be chosen by."""
    found: list[str] = []
    for scorer in task.scorers():
        found += _SQUAD[task.can_be_unanswerable] if scorer == "squad" else FIGURES.get(scorer, (scorer,))
    return found
