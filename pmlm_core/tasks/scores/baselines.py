"""What a model has to beat: the most frequent label, the mean, the first sentences, no answer."""

from collections import Counter
from collections.abc import Iterable

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Answer, TextExample
from pmlm_core.tasks.scores.sentences import sentences


def majority_label(training: Iterable[TextExample]) -> str:
    """The most frequent label; among equally frequent ones the first in alphabetical order.

    Raises:
        DataError: there are no labels.
    """
    counts = Counter(str(example.label) for example in training if example.label is not None)
    if not counts:
        raise DataError("no training example has a label; the most frequent one is unknown")
    return min(counts, key=lambda label: (-counts[label], label))


def mean_value(training: Iterable[TextExample]) -> float:
    """Mean of a regression's labels. As a constant its correlations are undefined, and reported as 0.

    Raises:
        DataError: there are no labels.
    """
    values = [float(example.label) for example in training if example.label is not None]
    if not values:
        raise DataError("no training example has a label; their mean is unknown")
    return sum(values) / len(values)


def lead(source: str, number: int = 3) -> str:
    """The first sentences of a text, one a line (by the rule of `sentences.py`): "lead-3"; XSum is held against 1.

    >>> lead("One. Two! Three? Four.", 2)
    'One.\\nTwo!'
    """
    return "\n".join(sentences(source)[:number])


def no_answer() -> Answer:
    """ "Unanswerable": of every question of SQuAD v2.0 about half of the development set's are."""
    return Answer("", -1, 0.0)
