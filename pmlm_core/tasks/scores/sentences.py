"""Cutting text into sentences by a small rule, for ROUGE-Lsum and lead baselines; no model, nothing to download.

A sentence ends at `.`, `!` or `?` (a closing quote or bracket may follow) before white space, but not after a title or
common abbreviation, a single letter ("J. Smith") or letters with full stops between ("U.S.", "e.g."); in text with
capitals, also not before a small letter. At `。！？` it ends without white space. Line breaks always end one.
"""

import re

_END = re.compile(r"""(?:[.!?]+["'”’)\]]*(?:\s''|\s-rrb-)?(?=\s|$)|[。！？]+[”’」』）]*)""")
_LETTERS = re.compile(r"[^\W\d_](?:\.[^\W\d_]{1,2})*|[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})+")
_ABBREVIATIONS = (
    " mr mrs ms messrs dr prof rev hon st sen rep gov gen col lt sgt capt cmdr adm jr sr vs etc cf al fig figs eq vol"
    " inc ltd co corp dept est approx jan feb mar apr jun jul aug sep sept oct nov dec "
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space around them removed; none for a blank text.

    >>> sentences("Dr. Who left. He said \\"why?\\" and ran!")
    ['Dr. Who left.', 'He said "why?" and ran!']
    """
    cased = text != text.lower()
    return [found for line in text.splitlines() for found in _in_line(line, cased) if found]


def _in_line(line: str, cased: bool) -> list[str]:
    found, start = [], 0
    for end in _END.finditer(line):
        following = line[end.end() :].lstrip()[:1]
        if cased and following.islower():
            continue
        if end.group().startswith(".") and _abbreviated(line[start : end.start()]):
            continue
        found.append(line[start : end.end()].strip())
        start = end.end()
    return [*found, line[start:].strip()]


def _abbreviated(before: str) -> bool:
    """Whether what precedes a full stop ends in an abbreviation; in tokenised text the full stop stands alone."""
    if not before or before[-1].isspace():
        return False
    word = before.split()[-1].lstrip("\"'“‘([").lower()
    return f" {word} " in _ABBREVIATIONS or (_LETTERS.fullmatch(word) is not None and word != "i")
