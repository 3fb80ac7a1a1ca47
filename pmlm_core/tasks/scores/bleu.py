"""BLEU-4 as question generation papers use it (the evaluation of Du et al., 2017): over the whole corpus, no smoothing.

Computed by sacrebleu over the tokens of `tokens.py`: clipped n-grams up to 4, brevity penalty by the closest reference
length, of equally close ones the shorter. Without a single common 4-gram it is 0.
"""

from collections.abc import Sequence
from typing import Any

from pmlm_core.tasks.scores.pairs import check_references
from pmlm_core.tasks.scores.tokens import question_tokens


def bleu4(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 in percent.

    Args:
        references: one text or more for each prediction, not the same number for all if need be.

    Raises:
        DataError: no examples, not as many lists of references as predictions, or an empty one.
    """
    check_references(predictions, references)
    found = [_line(text) for text in predictions]
    wanted = [[_line(text) for text in texts] for texts in references]
    # sacrebleu wants the first references of all, the second of all …, None where an example has no more.
    columns = [[texts[i] if i < len(texts) else None for texts in wanted] for i in range(max(map(len, wanted)))]
    return float(_metric().corpus_score(found, columns).score)


def bleu4_statistics(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[int]]:
    """What BLEU-4 of any selection of the examples is made of, summed over it.

    Returns:
        For each example its length, the length of the closest reference, the clipped n-grams in common and all of its
        n-grams, for n = 1, 2, 3, 4: ten counts.

    Raises:
        DataError: as `bleu4`.
    """
    check_references(predictions, references)
    metric = _metric()
    rows = []
    for text, texts in zip(predictions, references, strict=True):
        score = metric.corpus_score([_line(text)], [[_line(each)] for each in texts])
        rows.append([int(count) for count in (score.sys_len, score.ref_len, *score.counts, *score.totals)])
    return rows


def _metric() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="none", smooth_method="none", lowercase=False, force=True, effective_order=False)


def _line(text: str) -> str:
    return " ".join(question_tokens(text))
