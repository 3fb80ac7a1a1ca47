"""What a paired test needs of one model on one split: for every figure, what any selection of examples makes it of.

`content` is kept as `paired/<split>.json` beside a run's predictions:

    {"format_version": 1, "task": "rte", "split": "dev", "metric": "accuracy", "examples": fingerprint, "ids": [...],
     "figures": {name: entry}}

An entry, its lists in the order of "ids" (of question generation a source's last question, see `by_source`), is of one
of these kinds:

    {"kind": "mean", "values": [...]}                        the mean of the examples' values: accuracy, SQuAD, ROUGE
    {"kind": "labels", "gold": [...], "predicted": [...]}    matthews, f1 (of class "1"), f1_macro
    {"kind": "numbers", "gold": [...], "predicted": [...]}   pearson, spearman
    {"kind": "bleu", "statistics": [[10 counts], ...]}       bleu4, see `bleu.bleu4_statistics`

`figure` computes it again, for many resamples at a time. METEOR is not among them: its program takes the whole corpus.

Shapes: R resamples, E examples in a resample, N examples of the split, K classes.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Task
from pmlm_core.tasks.scoring import by_source, is_labelled
from pmlm_core.tasks.submission import prediction_of

FORMAT_VERSION = 1
POSITIVE = "1"

Entry = Mapping[str, Any]


def content(
    task: Task,
    split: str,
    fingerprint: str,
    examples: Sequence[Any],
    predictions: Mapping[str, Any],
    figures: Collection[str],
) -> dict[str, Any]:
    """What `paired/<split>.json` holds; of the labelled examples only.

    Args:
        fingerprint: of the split's examples: two models can be compared where it is the same.
        figures: names of what the task computes; those that hang on single examples are expressed, others left out.

    Raises:
        DataError: an example has no prediction.
    """
    scored = [example for example in examples if is_labelled(example)]
    if task.scored_by_source:
        scored = by_source(scored)
    found = [prediction_of(example, predictions) for example in scored]
    entries = _ENTRIES[task.kind](task, scored, found, figures) if scored else {}
    return {
        "format_version": FORMAT_VERSION,
        "task": task.name,
        "split": split,
        "metric": task.metric,
        "examples": fingerprint,
        "ids": [example.id for example in scored],
        "figures": {name: entries[name] for name in figures if name in entries},
    }


def _of_labels(task: Task, examples: Sequence[Any], found: Sequence[Any], figures: Collection[str]) -> dict[str, Entry]:
    gold, predicted = [str(example.label) for example in examples], [str(label) for label in found]
    pairs = {"kind": "labels", "gold": gold, "predicted": predicted}
    right = [100.0 * (one == other) for one, other in zip(gold, predicted, strict=True)]
    return {"accuracy": _mean(right), "matthews": pairs, "f1": pairs, "f1_macro": pairs}


def _of_numbers(
    task: Task, examples: Sequence[Any], found: Sequence[Any], figures: Collection[str]
) -> dict[str, Entry]:
    gold, predicted = [float(example.label) for example in examples], [float(value) for value in found]
    pairs = {"kind": "numbers", "gold": gold, "predicted": predicted}
    return {"pearson": pairs, "spearman": pairs}


def _of_answers(
    task: Task, examples: Sequence[Any], found: Sequence[Any], figures: Collection[str]
) -> dict[str, Entry]:
    from pmlm_core.tasks.scores.squad import points_v1, points_v2

    points_of = points_v2 if task.can_be_unanswerable else points_v1
    points = [points_of(example, answer.text) for example, answer in zip(examples, found, strict=True)]
    exact, f1 = ([100 * value for value in values] for values in zip(*points, strict=True))
    return {"exact" if task.can_be_unanswerable else "exact_match": _mean(exact), "f1": _mean(f1)}


def _of_texts(task: Task, examples: Sequence[Any], found: Sequence[Any], figures: Collection[str]) -> dict[str, Entry]:
    from pmlm_core.tasks.scores import bleu, rouge

    references = [list(example.references) for example in examples]
    if "bleu4" not in figures:
        shares = rouge.rouge_each(found, references)
        return {name: _mean([100 * share for share in each]) for name, each in shares.items()}
    captions = [100 * share for share in rouge.rouge_l_captions_each(found, references)]
    statistics = bleu.bleu4_statistics(found, references)
    return {"bleu4": {"kind": "bleu", "statistics": statistics}, "rougeL": _mean(captions)}


_ENTRIES = {
    "classification": _of_labels,
    "regression": _of_numbers,
    "question_answering": _of_answers,
    "generation": _of_texts,
}


def _mean(values: Sequence[float]) -> Entry:
    return {"kind": "mean", "values": list(values)}


def figure(name: str, entry: Entry, indices: ArrayLike | None = None) -> np.ndarray:
    """The figure over resampled examples, in percent; where it is undefined, 0, as in the task's own score.

    Args:
        indices: places of examples, [E] or [R, E], an example as often as its place is there; None for each once.
            Memory goes with their number, so give many resamples of a large split in parts.

    Returns:
        [] or [R], float64.

    Raises:
        DataError: the entry is of no known kind, or the figure is not one that its kind makes.
    """
    kind = entry.get("kind")
    if kind not in _FIGURES or (kind != "mean" and name not in _OF_KIND[str(kind)]):
        raise DataError(f"figure '{name}' of kind '{kind}' is not known; is the file of a newer version?")
    lists = [value for part, value in entry.items() if part != "kind"]
    places_E = np.arange(len(lists[0])) if indices is None else np.asarray(indices)
    if not places_E.shape[-1]:
        raise DataError(f"figure '{name}' of no examples is not defined")
    found_R = _FIGURES[str(kind)](name, entry, np.atleast_2d(places_E))
    return found_R if places_E.ndim == 2 else found_R[0]


_OF_KIND = {"labels": ("matthews", "f1", "f1_macro"), "numbers": ("pearson", "spearman"), "bleu": ("bleu4",)}


def _means(name: str, entry: Entry, places_RE: np.ndarray) -> np.ndarray:
    return np.asarray(entry["values"], np.float64)[places_RE].mean(1)


def _label_figures(name: str, entry: Entry, places_RE: np.ndarray) -> np.ndarray:
    both = [*entry["gold"], *entry["predicted"]]
    if name == "f1":
        both = [label == POSITIVE for label in both]
    classes, codes = np.unique(np.asarray(both), return_inverse=True)
    K, N = len(classes), len(entry["gold"])
    pairs_RE = (codes[:N] * K + codes[N:])[places_RE]
    R = len(pairs_RE)
    flat = pairs_RE + K * K * np.arange(R)[:, None]
    counts_RKK = np.bincount(flat.ravel(), minlength=R * K * K).reshape(R, K, K).astype(np.float64)
    gold_RK, predicted_RK = counts_RKK.sum(2), counts_RKK.sum(1)
    right_RK = np.diagonal(counts_RKK, axis1=1, axis2=2)
    if name == "matthews":
        total = float(places_RE.shape[1])
        together = right_RK.sum(1) * total - (gold_RK * predicted_RK).sum(1)
        alone = (total**2 - (gold_RK**2).sum(1)) * (total**2 - (predicted_RK**2).sum(1))
        return 100 * _shares(together, np.sqrt(alone))
    f1_RK = _shares(2 * right_RK, gold_RK + predicted_RK)
    if name == "f1":
        return 100 * f1_RK[:, -1] * (bool(classes[-1]))  # without the class, classes are [False] and its F1 is 0
    return 100 * f1_RK.sum(1) / ((gold_RK + predicted_RK) > 0).sum(1)


def _correlations(name: str, entry: Entry, places_RE: np.ndarray) -> np.ndarray:
    sides = [np.asarray(entry[side], np.float64)[places_RE] for side in ("gold", "predicted")]
    constant_R = np.logical_or(*(side.min(1) == side.max(1) for side in sides))
    if name == "spearman":
        from scipy.stats import rankdata

        sides = [rankdata(side, axis=1) for side in sides]
    gold_RE, predicted_RE = (_unit(side) for side in sides)
    found_R = np.clip((gold_RE * predicted_RE).sum(1), -1, 1)
    return 100 * np.where(constant_R, 0.0, found_R)


def _unit(values_RE: np.ndarray) -> np.ndarray:
    """Deviations from the mean, of length 1."""
    deviations_RE = values_RE - values_RE.mean(1, keepdims=True)
    largest_R1 = np.abs(deviations_RE).max(1, keepdims=True)  # squares of tiny numbers would vanish
    scaled_RE = _shares(deviations_RE, largest_R1)
    return _shares(scaled_RE, np.sqrt((scaled_RE**2).sum(1, keepdims=True)))


def _bleu(name: str, entry: Entry, places_RE: np.ndarray) -> np.ndarray:
    rows_N10 = np.asarray(entry["statistics"], np.float64)
    sums_R10 = rows_N10[places_RE].sum(1)
    length_R, reference_R = sums_R10[:, 0], sums_R10[:, 1]
    common_R4, all_R4 = sums_R10[:, 2:6], sums_R10[:, 6:]
    some_R = (common_R4 > 0).all(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision_R = np.exp(np.log(common_R4 / all_R4).mean(1))
        brevity_R = np.exp(np.minimum(0.0, 1 - reference_R / length_R))
    return 100 * np.where(some_R, precision_R * brevity_R, 0.0)


def _shares(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients; 0 where nothing is below."""
    return np.divide(above, below, out=np.zeros_like(above, np.float64), where=below > 0)


_FIGURES = {"mean": _means, "labels": _label_figures, "numbers": _correlations, "bleu": _bleu}
