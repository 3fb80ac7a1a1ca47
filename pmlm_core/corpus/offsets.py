"""Where tokens stand in the original text: what a tokenizer library says, made exact.

The libraries map their normalised text back, but leave three things to do: SentencePiece counts the space before a word
to it, gives the tokens of one expanded character (½ is "1⁄2" to it) an empty span all but the last, and WordPiece drops
the combining marks that it strips.
"""

import unicodedata

import numpy as np

# What both libraries turn into a space, besides white space and invisible characters: U+2581, which is SentencePiece's
# own sign for it, and the replacement character.
_OTHER_BLANKS = "▁\ufffd"
_BLANK_CATEGORIES = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf"))


def is_blank(character: str) -> bool:
    """Whether a character stands between words: white space, controls, format characters."""
    if character.isalnum():
        return False
    return character in _OTHER_BLANKS or unicodedata.category(character) in _BLANK_CATEGORIES


def exact_spans(text: str, spans: np.ndarray, is_space: np.ndarray) -> np.ndarray:
    """Trim and complete the spans of a text's tokens.

    Args:
        spans: int [tokens, 2], start and end as the library gives them, in the order of the text.
        is_space: bool [tokens]; tokens that stand for white space alone, which end up with an empty span.

    Returns:
        int32 [tokens, 2]. Blanks at the edges of a span are off it; of a character that became several tokens each has
        it whole; a combining mark belongs to the token before it.
    """
    out = np.empty((len(spans), 2), np.int32)
    length = len(text)
    after = length
    for token in range(len(spans) - 1, -1, -1):
        raw_start, raw_end = spans[token].tolist()
        start, end = raw_start, raw_end
        while start < end and is_blank(text[start]):
            start += 1
        while start < end and is_blank(text[end - 1]):
            end -= 1
        if start == end and not is_space[token]:
            end = min(end + 1, length)
        elif start < end:
            while end < after and unicodedata.category(text[end])[0] == "M":
                end += 1
        after = min(after, raw_start)
        out[token] = start, end
    return out


def mend(text: str) -> str:
    """`text` with U+FFFD for an unpaired surrogate and one character for a pair; neither library takes surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def positions_before_mending(text: str) -> np.ndarray:
    """Of every character of `mend(text)`, and of its end, the position in `text`.

    >>> positions_before_mending("a\\ud83d\\ude00b").tolist()
    [0, 1, 3, 4]
    """
    positions, i = [], 0
    while i < len(text):
        positions.append(i)
        pair = "\ud800" <= text[i] <= "\udbff" and "\udc00" <= text[i + 1 : i + 2] <= "\udfff"
        i += 2 if pair else 1
    return np.array([*positions, len(text)], np.int32)
