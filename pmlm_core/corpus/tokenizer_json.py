"""BERT's vocabulary out of `tokenizer.json`: all that transformers 5 writes of a tokenizer."""

import json
from typing import Any

from pmlm_core.errors import DataError

TOKENIZER_JSON = "tokenizer.json"
_WORDS = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
"""What BERT's WordPiece has, and `WordPieceBackend` with it."""


def wordpiece_in(content: bytes, origin: str) -> tuple[bytes, bool | None]:
    """The vocabulary as a `vocab.txt`, and whether text keeps its case; None where the file does not say.

    Raises:
        DataError: it is no tokenizer of BERT's kind, or one that would give other ids here.
    """
    try:
        told = json.loads(content)
        model, added = told["model"], told.get("added_tokens") or []
        kind = model.get("type", "of no named kind")
        if kind != "WordPiece":
            raise DataError(f"{origin} holds a tokenizer that is {kind}; of such files BERT's WordPiece alone is read")
        ids = {**model["vocab"], **{token["content"]: token["id"] for token in added}}
        cuts = (told.get("pre_tokenizer") or {"type": None})["type"]
        lowercase = _lowercases(told.get("normalizer"), origin)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{origin} cannot be read as a tokenizer ({error!r}); give BERT's vocab.txt") from None
    others = {name: model[name] for name, usual in _WORDS.items() if model.get(name, usual) != usual}
    others |= {"pre_tokenizer": cuts} if cuts != "BertPreTokenizer" else {}
    if others:
        shown = ", ".join(f"{name} {value!r}" for name, value in others.items())
        raise DataError(f"{origin}: a WordPiece that cuts text otherwise than BERT's does ({shown}); it is not read")
    tokens = sorted(ids, key=lambda token: ids[token])
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise DataError(f"{origin}: the ids of its {len(tokens)} tokens are not 0 to {len(tokens) - 1}, each once")
    if odd := [token for token in tokens if "\n" in token or token.endswith("\r")]:
        raise DataError(f"{origin}: token {odd[0]!r} holds the end of a line, and a vocabulary has a token a line")
    return "".join(f"{token}\n" for token in tokens).encode(), None if lowercase is None else not lowercase


def _lowercases(normalizer: dict[str, Any] | None, origin: str) -> bool | None:
    if normalizer is None:
        return None
    if normalizer["type"] != "BertNormalizer":
        raise DataError(
            f"{origin}: its normalizer is {normalizer['type']}, and text would get other ids here; a BertNormalizer "
            "alone is read"
        )
    for name in ("clean_text", "handle_chinese_chars"):
        if normalizer[name] is not True:
            raise DataError(
                f"{origin}: its normalizer has {name} {normalizer[name]!r}, and text would get other ids here; it must "
                "be true, as BERT's"
            )
    lowercase, accents = bool(normalizer["lowercase"]), normalizer.get("strip_accents")
    if accents not in (None, lowercase):
        raise DataError(
            f"{origin} {'takes' if accents else 'leaves'} accents {'off' if accents else 'on'} letters whose case it "
            f"{'changes' if lowercase else 'keeps'}; here the two go together, so that text would get other ids"
        )
    return lowercase
