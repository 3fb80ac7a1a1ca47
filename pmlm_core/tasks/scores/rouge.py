"""ROUGE-1, 2, L and Lsum by Google's rouge-score: lower case, a-z and 0-9 only, Porter stems; F in percent.

- Lsum, the "ROUGE-L" of summarization papers, compares sentence by sentence, one a line. A text without line breaks is
  cut by the rule of `sentences.py`; a text with line breaks is taken as it is, as the highlights of CNN/DailyMail are.
  "rougeL" takes the whole text as one sentence.
- Several references: for every example and every figure the reference with the highest F counts.
- The figures are means over examples. A text without a letter or digit of those above scores 0.

`rouge_l_captions` is another ROUGE-L, that of question generation papers.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pmlm_core.tasks.scores.pairs import check_references
from pmlm_core.tasks.scores.sentences import sentences
from pmlm_core.tasks.scores.tokens import question_tokens

logger = logging.getLogger(__name__)

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BETA = 1.2


def rouge(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """The figures of `NAMES`.

    Args:
        references: one text or more for each prediction.

    Raises:
        DataError: no examples, not as many lists of references as predictions, or an empty one.
    """
    return {name: 100 * sum(shares) / len(shares) for name, shares in rouge_each(predictions, references).items()}


def rouge_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """The figures of `NAMES` for each example, 0 to 1.

    Raises:
        DataError: as `rouge`.
    """
    check_references(predictions, references)
    scorer = _scorer()
    shares: dict[str, list[float]] = {name: [] for name in NAMES}
    for text, texts in zip(predictions, references, strict=True):
        scores = scorer.score_multi([_one_a_line(each) for each in texts], _one_a_line(text))
        for name in NAMES:
            shares[name].append(float(scores[name].fmeasure))
    if not any(c.isascii() and c.isalnum() for texts in references for text in texts for c in text):
        logger.warning("no reference has a letter a-z or a digit, the only ones that ROUGE's tokenization keeps: all 0")
    return shares


def rouge_l_captions(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L as the evaluation of Du et al. (2017) has it, which comes from image captioning (coco-caption).

    Tokens of `tokens.py`, no stems; F weighs recall with beta 1.2; with several references the highest precision and
    the highest recall count, whichever reference each is of. Mean over examples, in percent.

    Raises:
        DataError: as `rouge`.
    """
    shares = rouge_l_captions_each(predictions, references)
    return 100 * sum(shares) / len(shares)


def rouge_l_captions_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """`rouge_l_captions` of each example, 0 to 1.

    Raises:
        DataError: as `rouge`.
    """
    check_references(predictions, references)
    shares = []
    for text, texts in zip(predictions, references, strict=True):
        found = question_tokens(text)
        pairs = [(_longest_common(found, tokens), len(tokens)) for tokens in map(question_tokens, texts)]
        precision = max((common for common, _ in pairs), default=0) / max(len(found), 1)
        recall = max(common / max(length, 1) for common, length in pairs)
        weighed = recall + BETA**2 * precision
        shares.append((1 + BETA**2) * precision * recall / weighed if precision and recall else 0.0)
    return shares


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for token in left:
        diagonal = 0
        for place, other in enumerate(right, 1):
            above = row[place]
            row[place] = diagonal + 1 if token == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def _one_a_line(text: str) -> str:
    return text if "\n" in text.strip() else "\n".join(sentences(text))


@lru_cache(maxsize=1)
def _scorer() -> Any:
    """rouge-score's scorer; it asks for a word's stem again and again, so these are kept."""
    from nltk.stem.porter import PorterStemmer
    from rouge_score import rouge_scorer, tokenize

    class Stemmer:
        stem = staticmethod(lru_cache(maxsize=100_000)(PorterStemmer().stem))

    class Tokenizer:
        def tokenize(self, text: str) -> list[str]:
            return list(tokenize.tokenize(text, Stemmer))

    return rouge_scorer.RougeScorer(list(NAMES), tokenizer=Tokenizer())
