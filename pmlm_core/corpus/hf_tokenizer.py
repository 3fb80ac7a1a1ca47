"""`PmlmTokenizer`: a checkpoint folder's tokenizer for Hugging Face, giving the very ids of `TextTokenizer`.

Importing this module registers it, so that `AutoTokenizer.from_pretrained(folder)` finds it. A pair is encoded
`[SOS] A [EOS] B [EOS]`, token types 0 and 1; a `text_target` `A [EOS]`, as the generating model wants its labels.
Special text such as "[MASK]" is ordinary text unless the caller asks for `split_special_tokens=False` (as one does to
write a sentence with masks to fill); what was added by `add_tokens` is found either
way, as it is spelt in the vocabulary (lower-cased by an uncased WordPiece).
"""

import re
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizer

from pmlm_core.corpus.sentencepiece_backend import MODEL_FILE
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.corpus.wordpiece_backend import VOCABULARY_FILE

_ROLES = {
    "bos_token": "sos",
    "cls_token": "sos",
    "eos_token": "eos",
    "sep_token": "eos",
    "pad_token": "pad",
    "unk_token": "unk",
    "mask_token": "mask",
}


class PmlmTokenizer(PreTrainedTokenizer):
    """Hugging Face face of a `TextTokenizer` (attribute `text_tokenizer`).

    Args:
        vocab_file: SentencePiece model.
        wordpiece_file: BERT vocabulary, where there is no `vocab_file`.
        do_lower_case: for a BERT vocabulary, as saved by `TextTokenizer.save`.
        kwargs: as for every Hugging Face tokenizer; `split_special_tokens` is True unless given.

    Raises:
        OSError: neither file is there (what `from_pretrained` expects).
        DataError: the file is not a tokenizer.
    """

    vocab_files_names = {"vocab_file": MODEL_FILE, "wordpiece_file": VOCABULARY_FILE}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask", "token_type_ids"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str | None = None,
        wordpiece_file: str | None = None,
        do_lower_case: bool | None = None,
        **kwargs: Any,
    ) -> None:
        path = vocab_file or wordpiece_file
        if path is None:
            raise OSError(f"no tokenizer there: neither {MODEL_FILE} nor {VOCABULARY_FILE}")
        named = {**kwargs.pop("model_specific_special_tokens", {})}
        pseudo = kwargs.pop("pseudo_token", named.get("pseudo_token"))
        self.text_tokenizer = TextTokenizer.load(
            str(path),
            cased=None if do_lower_case is None else not do_lower_case,
            pseudo_token=None if pseudo is None else str(pseudo),
        )
        backend = self.text_tokenizer.backend
        self._id_to_piece = [backend.piece(i) for i in range(backend.vocab_size)]
        self._piece_to_id = {piece: i for i, piece in enumerate(self._id_to_piece)}
        self._special_text = frozenset(backend.special_tokens.values())
        for role, name in _ROLES.items():
            kwargs.setdefault(role, backend.special_tokens[name])
        kwargs.setdefault("split_special_tokens", True)
        kwargs.setdefault("model_max_length", 512)
        kwargs["special_tokens_pattern"] = "cls_sep"
        kwargs["token_type_ids_pattern"] = "bert_style"
        kwargs["model_specific_special_tokens"] = {**named, "pseudo_token": backend.special_tokens["pseudo"]}
        if "do_lower_case" in backend.settings():
            # As an attribute for `add_tokens`, as an argument for `save_pretrained`.
            self.do_lower_case = kwargs["do_lower_case"] = backend.settings()["do_lower_case"]
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return self.text_tokenizer.vocab_size

    def get_vocab(self) -> dict[str, int]:
        return {**self._piece_to_id, **self._added_tokens_encoder}

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:  # type: ignore[override]
        """Split a text into tokens, [SOS] and [EOS] left out."""
        special = set(self.all_special_tokens)
        added = [token for token in self._added_tokens_encoder if token not in special]
        if not added or not kwargs.get("split_special_tokens", self.split_special_tokens):
            return super().tokenize(text, **kwargs)
        # transformers looks for all added tokens or for none.
        parts = re.split("|".join(map(re.escape, sorted(added, key=len, reverse=True))).join("()"), text)
        return [token for part in parts if part for token in ([part] if part in added else self._tokenize(part))]

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self._id_to_piece[i] for i in self.text_tokenizer.encode([text])[0].tolist()]

    def _switch_to_target_mode(self) -> None:
        self.special_tokens_pattern = "eos"

    def _switch_to_input_mode(self) -> None:
        self.special_tokens_pattern = "cls_sep"

    def _convert_token_to_id(self, token: str) -> int:
        return self._piece_to_id.get(token, self.text_tokenizer.special_ids.unk)

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < len(self._id_to_piece):
            raise IndexError(f"id {index} is outside this tokenizer's 0..{len(self._id_to_piece) - 1}")
        return self._id_to_piece[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens to text; special and added tokens stand apart, set off by spaces."""
        parts: list[str] = []
        run: list[int] = []
        for token in [*tokens, None]:
            if token is not None and token in self._piece_to_id and token not in self._special_text:
                run.append(self._piece_to_id[token])
                continue
            if run:
                parts.append(self.text_tokenizer.decode(run))
                run = []
            if token is not None:
                parts.append(token)
        return " ".join(parts)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the model or vocabulary file, byte for byte the one loaded."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        paths = []
        for name, content in self.text_tokenizer.backend.files().items():
            path = Path(save_directory) / f"{prefix}{name}"
            path.write_bytes(content)
            paths.append(str(path))
        return tuple(paths)


class _TokenizerOnlyConfig(PreTrainedConfig):
    """Key of the registration: AutoTokenizer wants a configuration class, and this room knows no model."""

    model_type = "pmlm-tokenizer"


AutoTokenizer.register(_TokenizerOnlyConfig, PmlmTokenizer, exist_ok=True)
