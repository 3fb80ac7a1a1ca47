"""BERT's WordPiece behind `TextTokenizer`, for published checkpoints: a `vocab.txt`, its numbering kept."""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pmlm_core.corpus.special import PSEUDO, SpecialIds
from pmlm_core.errors import DataError

VOCABULARY_FILE = "vocab.txt"
MASK_AS_PSEUDO = "[MASK]"
_NAMES = {"sos": "[CLS]", "pad": "[PAD]", "eos": "[SEP]", "unk": "[UNK]", "mask": "[MASK]"}
_UNUSED = re.compile(r"\[unused\d+\]")
_MAX_WORD_CHARACTERS = 100  # as in BERT's own tokenizer: a longer word is [UNK]

# A process encodes on one core, as with SentencePiece; somebody who wants threads sets the variable.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class WordPieceBackend:
    """Encodes with a BERT vocabulary.

    Args:
        vocabulary: the bytes of a `vocab.txt`, a token a line; the line number is the id.
        cased: whether the text keeps case and accents; None = cased if a token has a capital letter.
        pseudo_token: `[PSEUDO]` (appended at the end if the vocabulary has none) or `[MASK]` (docs/method.md, 3).
        origin: where the vocabulary comes from, for messages.

    Raises:
        DataError: not UTF-8, a token twice, or a special token missing.
    """

    kind = "wordpiece"
    can_cut = True

    def __init__(
        self,
        vocabulary: bytes,
        *,
        cased: bool | None = None,
        pseudo_token: str = PSEUDO,
        origin: str = "the vocabulary given",
    ) -> None:
        tokens = _read(vocabulary, origin)
        ids = {token: i for i, token in enumerate(tokens)}
        if pseudo_token not in (PSEUDO, MASK_AS_PSEUDO):
            raise DataError(f"{origin}: pseudo_token is '{pseudo_token}'; it must be {PSEUDO} or {MASK_AS_PSEUDO}")
        if pseudo_token not in ids:
            ids[pseudo_token] = len(tokens)
        self._tokens = list(ids)
        self.vocabulary = vocabulary
        self.cased = _looks_cased(tokens) if cased is None else cased
        self.special_tokens = {**_NAMES, "pseudo": pseudo_token}
        self.special_ids = SpecialIds(**{name: ids[token] for name, token in self.special_tokens.items()})
        self.vocab_size = len(self._tokens)
        model = models.WordPiece(vocab=ids, unk_token=_NAMES["unk"], max_input_chars_per_word=_MAX_WORD_CHARACTERS)
        # The special tokens are not registered as such: a registered one would be found in text.
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not self.cased)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.decoder = decoders.WordPiece()

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """int32 ids that text can give, ascending (no special and no `[unusedN]` token)."""
        special = set(self.special_tokens.values())
        ordinary = [i for i, t in enumerate(self._tokens) if t not in special and not _UNUSED.fullmatch(t)]
        return np.array(ordinary, dtype=np.int32)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids (int32) of each text."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (int32) of a text, their character spans [tokens, 2], and which are spaces alone (none)."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
        return np.array(encoding.ids, np.int32), spans, np.zeros(len(spans), bool)

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def piece(self, token_id: int) -> str:
        """The token of an id as text."""
        return self._tokens[token_id]

    def files(self) -> dict[str, bytes]:
        return {VOCABULARY_FILE: self.vocabulary}

    def settings(self) -> dict[str, Any]:
        return {"do_lower_case": not self.cased, "pseudo_token": self.special_tokens["pseudo"]}


def _read(vocabulary: bytes, origin: str) -> list[str]:
    try:
        tokens = [line.removesuffix("\r") for line in vocabulary.decode().split("\n")]
    except UnicodeDecodeError as error:
        raise DataError(f"{origin} is not UTF-8 text (byte {error.start}); give BERT's vocab.txt") from None
    if tokens[-1] == "":
        tokens.pop()
    seen: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        if token in seen:
            raise DataError(
                f"{origin}: token '{token}' stands on line {seen[token]} and again on line {line}; "
                "an id must have one token, so remove or rename one of them"
            )
        seen[token] = line
    if missing := [token for token in _NAMES.values() if token not in seen]:
        raise DataError(f"{origin}: no {', '.join(missing)} among its {len(tokens)} tokens; give BERT's vocab.txt")
    return tokens


def _looks_cased(tokens: list[str]) -> bool:
    return any(token != token.lower() for token in tokens if not (token.startswith("[") and token.endswith("]")))
