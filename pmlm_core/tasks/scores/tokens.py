"""The tokenization under which generated questions are scored (BLEU, METEOR, ROUGE-L).

Published references of question generation are in Penn Treebank tokens ("do n't", `` '', -lrb-, &amp;); models write
plain text or words with every punctuation mark apart, after their tokenizer. So that none of this counts as an error,
both sides are lower-cased, Treebank's spellings are undone, and every punctuation mark becomes a token of its own.

UniLM's table has figures over such tokens, BERT's, on both sides; over the published references as they are its authors
give BLEU-4 0.6 lower (microsoft/unilm, unilm-v1/README.md).
"""

import re
import unicodedata
from html import unescape

_TREEBANK = {
    "-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}", "`": "'",
}  # fmt: skip
_CURLY = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'"})
_DOUBLE_QUOTES = re.compile("``|''")
_SPLIT_NEGATION = re.compile(r"(\w) n ' t\b")


def question_tokens(text: str) -> list[str]:
    """Tokens of a question.

    >>> question_tokens("Why don't  U.S. firms (2) …") == question_tokens("why do n't u . s . firms -lrb- 2 -rrb- …")
    True
    """
    plain = _DOUBLE_QUOTES.sub('"', unescape(text).lower().translate(_CURLY)).replace("cannot", "can not")
    words = [_TREEBANK.get(word, word) for word in plain.split()]
    spaced = " ".join("".join(f" {c} " if _is_mark(c) else c for c in " ".join(words)).split())
    return _SPLIT_NEGATION.sub(r"\1n ' t", spaced).split()


def _is_mark(c: str) -> bool:
    return unicodedata.category(c)[0] in "PS"
