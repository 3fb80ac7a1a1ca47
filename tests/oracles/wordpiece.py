"""BERT's WordPiece in the plainest form (after google-research/bert): clean, split, longest match first."""

import unicodedata


def wordpiece(text: str, vocabulary: dict[str, int], lower: bool) -> list[int]:
    """Ids of `text`; text without Chinese characters only."""
    cleaned = "".join(" " if c in "\t\n\r" or unicodedata.category(c) == "Zs" else c for c in text if _kept(c))
    ids = []
    for word in cleaned.split():
        if lower:
            word = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        for part in _split_punctuation(word):
            ids.extend(_longest_match(part, vocabulary))
    return ids


def _kept(c: str) -> bool:
    return c in "\t\n\r" or (c not in "\0\ufffd" and not unicodedata.category(c).startswith("C"))


def _punctuation(c: str) -> bool:
    return (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or unicodedata.category(c).startswith("P")


def _split_punctuation(word: str) -> list[str]:
    parts = [""]
    for c in word:
        if _punctuation(c):
            parts += [c, ""]
        else:
            parts[-1] += c
    return [part for part in parts if part]


def _longest_match(word: str, vocabulary: dict[str, int]) -> list[int]:
    unknown = [vocabulary["[UNK]"]]
    if len(word) > 100:
        return unknown
    ids, start = [], 0
    while start < len(word):
        for stop in range(len(word), start, -1):
            token = ("##" if start else "") + word[start:stop]
            if token in vocabulary:
                break
        else:
            return unknown
        ids.append(vocabulary[token])
        start = stop
    return ids
