"""What every scorer asks of its two lists: as many of one as of the other, and something in them."""

from collections.abc import Sequence
from typing import Any

from pmlm_core.errors import DataError


def check_pairs(gold: Sequence[Any], predicted: Sequence[Any]) -> None:
    """Raise DataError unless both are of one length, above zero."""
    if len(gold) != len(predicted):
        raise DataError(f"{len(predicted)} predictions for {len(gold)} examples; each example needs exactly one")
    if not gold:
        raise DataError("there are no examples to score")


def check_references(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise DataError unless every text has a list with at least one reference."""
    check_pairs(references, predictions)
    for place, texts in enumerate(references):
        if isinstance(texts, str) or not texts:
            raise DataError(f"example {place} (counted from 0) has no list of references; give at least one text each")
