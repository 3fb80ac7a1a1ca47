"""Accuracy, F1, Matthews' correlation (scikit-learn), Pearson's and Spearman's correlation (SciPy). In percent.

A figure that is undefined is 0, as scikit-learn and the GLUE baselines have it: Matthews' of one class only, F1 without
a positive label or prediction, and the correlations of constant values (these with a logged warning, because a model
that always says the same is mostly one that did not learn).
"""

import logging
import math
from collections.abc import Sequence

from pmlm_core.errors import DataError
from pmlm_core.tasks.scores.pairs import check_pairs

logger = logging.getLogger(__name__)


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of predictions that are the label.

    Raises:
        DataError: no examples, or not as many predictions as labels; so for the other functions here.
    """
    from sklearn.metrics import accuracy_score

    check_pairs(gold, predicted)
    return 100 * float(accuracy_score(list(gold), list(predicted)))


def f1_binary(gold: Sequence[str], predicted: Sequence[str], positive: str = "1") -> float:
    """F1 of one class against all the others."""
    from sklearn.metrics import f1_score

    check_pairs(gold, predicted)
    gold_ones = [int(label == positive) for label in gold]
    predicted_ones = [int(label == positive) for label in predicted]
    return 100 * float(f1_score(gold_ones, predicted_ones, pos_label=1, zero_division=0))


def f1_macro(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Mean of the classes' F1; a class that is neither labelled nor predicted takes no part."""
    from sklearn.metrics import f1_score

    check_pairs(gold, predicted)
    return 100 * float(f1_score(list(gold), list(predicted), average="macro", zero_division=0))


def matthews(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Matthews' correlation coefficient, for several classes too; -100 to 100."""
    from sklearn.metrics import matthews_corrcoef

    check_pairs(gold, predicted)
    return 100 * float(matthews_corrcoef(list(gold), list(predicted)))


def pearson_spearman(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Both correlations, "pearson" and "spearman"; -100 to 100. Spearman's gives ties their mean rank.

    Raises:
        DataError: also for a number that is not finite.
    """
    check_pairs(gold, predicted)
    for name, values in (("label", gold), ("prediction", predicted)):
        for place, value in enumerate(values):
            if not math.isfinite(value):
                raise DataError(f"{name} {place} (counted from 0) is {value}; correlations need finite numbers")
    for name, values in (("labels", gold), ("predictions", predicted)):
        if min(values) == max(values):
            logger.warning(
                "all %d %s are %g: the correlations are undefined, reported as 0", len(values), name, values[0]
            )
            return {"pearson": 0.0, "spearman": 0.0}
    from scipy import stats

    pearson = float(stats.pearsonr(list(gold), list(predicted)).statistic)
    spearman = float(stats.spearmanr(list(gold), list(predicted)).statistic)
    return {"pearson": 100 * pearson, "spearman": 100 * spearman}
