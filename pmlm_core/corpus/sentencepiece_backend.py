"""SentencePiece behind `TextTokenizer`: models that pmlm trained, and models of other people.

An own model holds the six special tokens as pieces 0..5. A foreign one keeps its order behind them (our id = 6 + its
id); its unknown piece becomes our `[UNK]`, its control pieces keep a place and are never emitted.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sentencepiece as spm

from pmlm_core.corpus.special import EOS, MASK, PAD, PSEUDO, SOS, UNK, SpecialIds
from pmlm_core.errors import DataError

MODEL_FILE = "tokenizer.model"
SPECIAL_PIECES = (SOS, PAD, EOS, UNK, MASK, PSEUDO)  # piece i has id i in an own model
_SPACE = "▁"


class SentencePieceBackend:
    """Encodes with one SentencePiece model; ids as described in the module.

    Raises `DataError` if `model` is not a SentencePiece model.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, origin: str = "the model given") -> None:
        self.model = model
        try:
            self._processor = spm.SentencePieceProcessor()
            self._processor.LoadFromSerializedProto(model)  # the constructor passes over an empty one
            n_pieces = self._processor.get_piece_size()
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(
                f"{origin} is not a SentencePiece model ({error}); give a .model file written by SentencePiece, "
                "or train one with `pmlm tokenizer`"
            ) from error
        self._pieces = [self._processor.id_to_piece(i) for i in range(n_pieces)]
        own = tuple(self._pieces[: len(SPECIAL_PIECES)]) == SPECIAL_PIECES and all(
            self._processor.is_unknown(i) if piece == UNK else self._processor.is_control(i)
            for i, piece in enumerate(SPECIAL_PIECES)
        )
        self._shift = 0 if own else len(SPECIAL_PIECES)
        self.special_ids = SpecialIds()
        self.special_tokens = dict(zip(("sos", "pad", "eos", "unk", "mask", "pseudo"), SPECIAL_PIECES, strict=True))
        self.vocab_size = n_pieces + self._shift
        self.can_cut = self._tokens_stay_between_spaces()

    def _tokens_stay_between_spaces(self) -> bool:
        """Whether cutting at white space changes nothing: probed, because the model file is the only witness."""
        squeezes = self._processor.normalize("  a \n b ") == f"{_SPACE}a{_SPACE}b"
        return squeezes and not any(_SPACE in piece[1:] or " " in piece for piece in self._pieces)

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """int32 ids of the pieces that text can give, ascending (no special, control, unused or unknown piece)."""
        p = self._processor
        ordinary = [
            i + self._shift
            for i in range(len(self._pieces))
            if not (p.is_control(i) or p.is_unknown(i) or p.is_unused(i))
        ]
        return np.array(ordinary, dtype=np.int32)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids (int32, read-only) of each text. One thread: processes are the unit of parallelism here."""
        # As arrays: no Python integer per token, as fast as SentencePiece alone.
        return [self._own(ids) for ids in self._processor.encode(list(texts), out_type="numpy", num_threads=1)]

    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (int32) of a text, SentencePiece's character spans of them [tokens, 2], and which are spaces alone."""
        # As a list of one, which refuses unpaired surrogates with the error of `encode`.
        (found,) = self._processor.encode([text], out_type="offset_mapping", return_bytes=False, num_threads=1)
        ids = np.array(found["ids"], np.int32)
        spans = np.array(found["offsets"], np.int32).reshape(-1, 2)
        return self._own(ids), spans, np.array([not piece.strip(_SPACE) for piece in found["pieces"]], bool)

    def _own(self, ids: np.ndarray) -> np.ndarray:
        """The model's ids as ours."""
        if not self._shift:
            return ids
        unknown = self._processor.unk_id()
        return np.where(ids == unknown, np.int32(self.special_ids.unk), ids + np.int32(self._shift))

    def decode(self, ids: list[int]) -> str:
        return self._processor.decode([i - self._shift for i in ids])

    def piece(self, token_id: int) -> str:
        """The token of an id as text, a different one for each id."""
        if token_id < len(SPECIAL_PIECES):
            return SPECIAL_PIECES[token_id]
        piece = self._pieces[token_id - self._shift]
        # A foreign model may have an ordinary piece named as one of our special tokens; text giving it must not
        # turn into the special id on the way through token strings.
        return f"{piece}#" if self._shift and piece.rstrip("#") in SPECIAL_PIECES else piece

    def files(self) -> dict[str, bytes]:
        return {MODEL_FILE: self.model}

    def settings(self) -> dict[str, Any]:
        return {}
