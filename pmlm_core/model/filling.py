"""Fill the `[MASK]`s of a text with a checkpoint, each mask independently of the others (docs/method.md, 1, AE).

A model whose objective has no AE is read where it was trained: at pseudo masks over the masks, all in one step.

The text is split at the literal "[MASK]" here and nowhere else: the tokenizer itself never makes a special id of text.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from pmlm_core.corpus.tokenizer import CONFIG_FILE, TextTokenizer
from pmlm_core.errors import CheckpointError, ConfigError, NotThereError, PmlmError, in_a_line
from pmlm_core.model.foreign import check_ours
from pmlm_core.model.masked_lm import PmlmForMaskedLM
from pmlm_core.model.objectives import Objective

MASK_TEXT = "[MASK]"
# Put before a piece of text that goes on inside a word, and its tokens taken off again: see `_continuation`.
_ANCHORS = ("a", "1", "the", "x", "-")


@dataclass(frozen=True)
class Candidate:
    """A token for a mask. `text` is the token alone; `starts_word` tells "able" the word from "able" the ending."""

    token_id: int
    text: str
    starts_word: bool
    probability: float


@dataclass(frozen=True)
class Filled:
    """A text with its masks filled: `filled` takes the likeliest token at each mask, each chosen independently."""

    text: str
    filled: str
    masks: tuple[tuple[Candidate, ...], ...]


class Filler:
    """A checkpoint folder, loaded to fill masks.

    Args:
        folder: a Hugging Face folder with its tokenizer, as pre-training writes it.
        warn: is told of texts longer than those the model was trained on.

    Raises:
        CheckpointError: the folder holds no model, or no tokenizer that fits it.
    """

    def __init__(self, folder: str, warn: Callable[[str], None] = lambda text: None) -> None:
        _check_folder(Path(folder))
        self.tokenizer = TextTokenizer.load(folder)
        try:
            self.model = PmlmForMaskedLM.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            if isinstance(error, PmlmError):
                raise
            raise CheckpointError(f"model {folder} cannot be read, it may be damaged: {in_a_line(error)}") from None
        self._warn = warn
        self._trained_length = trained_length(Path(folder))
        config = self.model.config
        if self.tokenizer.vocab_size > config.vocab_size or self.tokenizer.special_ids != config.special_ids:
            raise CheckpointError(
                f"{folder}: the tokenizer ({self.tokenizer.vocab_size} tokens, special ids "
                f"{self.tokenizer.special_ids.as_dict()}) is not the one the model ({config.vocab_size} tokens, "
                f"{config.special_ids.as_dict()}) was trained with; put the right tokenizer files into the folder"
            )
        ordinary = torch.zeros(config.vocab_size, dtype=torch.bool)
        ordinary[torch.from_numpy(np.array(self.tokenizer.ordinary_ids, dtype=np.int64))] = True
        self._forbidden_V = ~ordinary

    def encode(self, text: str) -> np.ndarray:
        """Encode a text with masks: `[SOS] TEXT [EOS]`, int32, `[MASK]`'s id where the text says so."""
        special = self.tokenizer.special_ids
        parts = text.split(MASK_TEXT)
        arrays = [np.array([special.sos], np.int32)]
        for index, part in enumerate(parts):
            if index:
                arrays.append(np.array([special.mask], np.int32))
            inside_word = index > 0 and part[:1].strip() != ""
            arrays.append(_continuation(self.tokenizer, part) if inside_word else self.tokenizer.encode([part])[0])
        return np.concatenate([*arrays, np.array([special.eos], np.int32)])

    def fill(self, texts: Sequence[str], top_k: int = 5) -> list[Filled]:
        """Fill each text by itself, with `top_k` candidates a mask, likeliest first.

        Raises:
            ConfigError: a text without a mask, one longer than the model's positions, or a `top_k` out of range.
        """
        allowed = len(self.tokenizer.ordinary_ids)
        if not 1 <= top_k <= allowed:
            raise ConfigError(f"top_k must be from 1 to {allowed}, the ordinary tokens there are, not {top_k}")
        rows = [self._checked(text, number) for number, text in enumerate(texts, 1)]
        return [self._fill_one(text, row, top_k) for text, row in zip(texts, rows, strict=True)]

    def _checked(self, text: str, number: int) -> np.ndarray:
        if MASK_TEXT not in text:
            raise ConfigError(f"text {number} has no {MASK_TEXT} to fill: {text[:80]!r}")
        ids = self.encode(text)
        positions = self.model.config.max_position_embeddings
        if len(ids) > positions:
            raise ConfigError(f"text {number} has {len(ids)} tokens, the model knows {positions} positions: shorten it")
        if self._trained_length is not None and len(ids) > self._trained_length:
            self._warn(
                f"text {number} has {len(ids)} tokens, the model was trained on rows of {self._trained_length}: it has "
                "not learned the positions beyond; shorten it if what it fills there makes no sense"
            )
        return ids

    @torch.inference_mode()
    def _fill_one(self, text: str, ids: np.ndarray, top_k: int) -> Filled:
        ids_1N = torch.from_numpy(ids.astype(np.int64))[None]
        mask = self.tokenizer.special_ids.mask
        positions_1M = (ids_1N[0] == mask).nonzero().T
        logits_MV = self._logits(ids_1N, positions_1M)[0].float().masked_fill(self._forbidden_V, float("-inf"))
        best = logits_MV.softmax(-1).topk(top_k, dim=-1)
        masks = tuple(
            tuple(self._candidate(token, p) for token, p in zip(tokens, ps, strict=True))
            for tokens, ps in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        filled = ids.copy()
        filled[ids == mask] = [candidates[0].token_id for candidates in masks]
        return Filled(text, self.tokenizer.decode(filled), masks)

    def _logits(self, ids_1N: Tensor, positions_1M: Tensor) -> Tensor:
        """Logits at the masks, [1, M, V]; the last layer and the output layer compute these slots only."""
        has_ae = Objective(self.model.config.objective).has_ae
        ae_1MD, par_1MD = self.model.pmlm.predicted_states(
            ids_1N,
            None,
            None,
            positions_1M,
            torch.ones_like(positions_1M),  # one step: no pseudo mask sees a true token, so these may be anything
            ids_1N.gather(1, positions_1M),
            ae=has_ae,
            par=not has_ae,
        )
        return self.model.head(ae_1MD if has_ae else par_1MD, self.model.pmlm.embeddings.word.weight)

    def _candidate(self, token_id: int, probability: float) -> Candidate:
        piece = self.tokenizer.backend.piece(token_id)
        starts = piece.startswith("▁") if self.tokenizer.backend.kind == "sentencepiece" else not piece.startswith("##")
        return Candidate(token_id, piece.removeprefix("##").replace("▁", " ").strip(), starts, probability)


def _continuation(tokenizer: TextTokenizer, part: str) -> np.ndarray:
    """Encode text that follows a mask without a space, as "." in "on the [MASK].".

    By itself it would be encoded as the start of a word. So it is encoded behind an anchor, whose tokens are then taken
    off; where every anchor grows together with the text, it stays the start of a word.
    """
    for anchor in _ANCHORS:
        alone, joined = tokenizer.encode([anchor, anchor + part])
        if 0 < len(alone) < len(joined) and np.array_equal(joined[: len(alone)], alone):
            return joined[len(alone) :]
    return tokenizer.encode([part])[0]


def trained_length(folder: Path) -> int | None:
    """Tokens of a row in training, which preprocessing writes down beside the tokenizer; None where it is not said."""
    try:
        length = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("model_max_length")
    except (OSError, ValueError, AttributeError):
        return None
    return length if isinstance(length, int) else None


def _check_head(folder: Path) -> None:
    """Refuse what was fine-tuned into something that has no output layer over the vocabulary, and would guess."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kinds = [str(kind) for kind in settings.get("architectures") or []]
    except (OSError, ValueError, AttributeError):
        return  # transformers says what is wrong with it
    if any(kind.endswith(("Classification", "QuestionAnswering")) for kind in kinds):
        raise CheckpointError(
            f"{folder} holds a {kinds[0]}, which has no output layer over the vocabulary to fill masks with; "
            "pmlm predict uses it, and pmlm fill takes a pre-trained checkpoint"
        )


def _check_folder(folder: Path) -> None:
    # Asked first: transformers takes the name of a missing folder for that of a model on a hub.
    if (folder / "config.json").is_file():
        check_ours((folder / "config.json").read_bytes(), str(folder))
        _check_head(folder)
        return
    if not folder.is_dir():
        raise NotThereError(f"{folder} is not a folder; give a checkpoint folder, such as pmlm pretrain makes")
    below = sorted(path.parent for path in folder.glob("*/config.json"))
    below = below or sorted(path.parent for path in folder.glob("*/*/config.json"))
    hint = f"; did you mean {below[-1]}?" if below else ""
    raise NotThereError(f"{folder} holds no model (no config.json){hint}")
