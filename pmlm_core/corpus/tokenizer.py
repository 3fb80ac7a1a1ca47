"""Text to ids and back: one face for SentencePiece models (own and foreign) and BERT vocabularies.

The special tokens (`special.py`) are put in by packing and by tasks, never found in text: whatever a text says, only
`[UNK]` among the special ids can come out of it. The same folder is a Hugging Face tokenizer (`hf_tokenizer.py`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np

from pmlm_core import storage
from pmlm_core.corpus.offsets import exact_spans, mend, positions_before_mending
from pmlm_core.corpus.sentencepiece_backend import MODEL_FILE, SentencePieceBackend
from pmlm_core.corpus.sentencepiece_training import DEFAULT_THREADS, train_model
from pmlm_core.corpus.special import PSEUDO, SpecialIds
from pmlm_core.corpus.text_cuts import PART_CHARACTERS, cut
from pmlm_core.corpus.tokenizer_json import TOKENIZER_JSON, wordpiece_in
from pmlm_core.corpus.wordpiece_backend import VOCABULARY_FILE, WordPieceBackend
from pmlm_core.errors import DataError, NotThereError

CONFIG_FILE = "tokenizer_config.json"
# In the order they are looked for; the foreign SentencePiece names are those of ALBERT, XLM-R and DeBERTa.
_KNOWN_FILES = (MODEL_FILE, "spiece.model", "sentencepiece.bpe.model", "spm.model", VOCABULARY_FILE, TOKENIZER_JSON)


_UNKNOWN_CLASS = "This is a tokenizer of pmlm's: import pmlm_core.model.auto before it is loaded.--pmlm.PmlmTokenizer"
"""Where AutoTokenizer should find the class. It finds it by name once that is imported; else it would open the file
with a tokenizer of its own, which gives other ids, and not say so. What is in front of the dashes it says instead."""
_AUTO_MAP = {"AutoTokenizer": [_UNKNOWN_CLASS, None]}


class Backend(Protocol):
    """What a tokenization algorithm gives; `pieces` of different ids differ."""

    kind: str
    can_cut: bool  # cutting text at white space changes no token
    vocab_size: int
    special_ids: SpecialIds
    special_tokens: dict[str, str]  # SpecialIds' field -> name

    @property
    def ordinary_ids(self) -> np.ndarray: ...
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...
    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
    def decode(self, ids: list[int]) -> str: ...
    def piece(self, token_id: int) -> str: ...
    def files(self) -> dict[str, bytes]: ...
    def settings(self) -> dict[str, Any]: ...


class TextTokenizer:
    """A tokenizer. Get one from `train` or `TextTokenizer.load`.

    Attributes:
        special_ids: ids of the special tokens.
        vocab_size: ids are 0..vocab_size-1.
        ordinary_ids: int32, ascending; the ids that may replace a token at random (no special, no unused one).
        fingerprint: SHA-256 (hex) of all that decides its output; stored with blocks and checkpoints.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.special_ids = backend.special_ids
        self.vocab_size = backend.vocab_size
        self.fingerprint = _fingerprint(backend)
        self._special = frozenset(self.special_ids.as_dict().values())

    @property
    def ordinary_ids(self) -> np.ndarray:
        return self.backend.ordinary_ids

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Encode texts on one thread.

        Args:
            texts: any strings; an unpaired surrogate counts as U+FFFD.

        Returns:
            One int32 array a text (perhaps read-only), without special ids except `[UNK]`; empty for an empty text.
        """
        if not self.backend.can_cut or all(len(text) <= PART_CHARACTERS for text in texts):
            return self._encode_parts(texts)
        parts: list[str] = []
        counts: list[int] = []
        for text in texts:
            before = len(parts)
            parts.extend(cut(text))
            counts.append(len(parts) - before)
        encoded = self._encode_parts(parts)
        joined, start = [], 0
        for count in counts:
            arrays = encoded[start : start + count]
            joined.append(arrays[0] if count == 1 else np.concatenate(arrays) if arrays else np.empty(0, np.int32))
            start += count
        return joined

    def _encode_parts(self, parts: list[str]) -> list[np.ndarray]:
        try:
            return self.backend.encode(parts)
        except (TypeError, UnicodeEncodeError):
            # Neither library takes unpaired surrogates, which JSON escapes can smuggle into a string.
            return self.backend.encode([mend(part) for part in parts])

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encode a text, and say where its tokens stand.

        Returns:
            int32 arrays, one number a token: its id, as `encode` gives it; start and end of `text[start:end]`, the
            characters that it stands for. Blanks are in no token: one that stands for white space alone is empty. The
            other spans come in the order of the text, and share a character where it became several tokens.

        >>> tokenizer = train(["the cat sat on the mat", "a cat and a mat"] * 9, vocab_size=20)
        >>> text = "the  mat sat"
        >>> _, starts, ends = tokenizer.encode_with_offsets(text)
        >>> "|".join(text[start:end] for start, end in zip(starts, ends) if start < end)
        't|h|e|mat|s|at'
        """
        parts = list(cut(text)) if self.backend.can_cut else [text]
        ids, spans, first = [np.empty(0, np.int32)], [np.empty((0, 2), np.int32)], 0
        for part in parts:
            part_ids, part_spans = self._encode_part_with_spans(part)
            ids.append(part_ids)
            spans.append(part_spans + np.int32(first))
            first += len(part)
        joined = np.concatenate(spans)
        return np.concatenate(ids), joined[:, 0], joined[:, 1]

    def _encode_part_with_spans(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            ids, spans, is_space = self.backend.encode_with_spans(part)
        except (TypeError, UnicodeEncodeError):
            mended = mend(part)
            ids, spans, is_space = self.backend.encode_with_spans(mended)
            return ids, positions_before_mending(part)[exact_spans(mended, spans, is_space)]
        return ids, exact_spans(part, spans, is_space)

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids back into text, skipping special ones.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        numbers = [int(i) for i in ids]
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.vocab_size:
            raise ValueError(
                f"ids run from {min(numbers)} to {max(numbers)}; this tokenizer has 0..{self.vocab_size - 1}"
            )
        return self.backend.decode([i for i in numbers if i not in self._special])

    @classmethod
    def load(cls, path: str, *, cased: bool | None = None, pseudo_token: str | None = None) -> "TextTokenizer":
        """Load a folder written by `save`, a SentencePiece `.model`, or a BERT `vocab.txt` or
        `tokenizer.json` (or a folder with one).

        Args:
            path: local, s3:// or gs://.
            cased, pseudo_token: for a BERT vocabulary, see `WordPieceBackend`; None = as saved beside it, else the
                case its tokens show and `[PSEUDO]`.

        Raises:
            DataError: nothing there, or not a tokenizer.
        """
        path = str(path)
        if storage.size(path) is not None:
            name, files = PurePosixPath(path.partition("?")[0]).name, {}
            files[name] = storage.read_bytes(path)
        else:
            present = set(storage.names_in(path))
            name = next((known for known in _KNOWN_FILES if known in present), "")
            if not name:
                raise NotThereError(
                    f"{path}: no tokenizer there (looked for {', '.join(_KNOWN_FILES)}); "
                    "train one with `pmlm tokenizer`, or give a SentencePiece .model, or BERT's vocab.txt or "
                    "tokenizer.json"
                )
            wanted = [name, CONFIG_FILE] if CONFIG_FILE in present else [name]
            files = {each: storage.read_bytes(storage.join(path, each)) for each in wanted}
        return cls.from_files(name, files, origin=path, cased=cased, pseudo_token=pseudo_token)

    @classmethod
    def from_files(
        cls,
        name: str,
        files: dict[str, bytes],
        *,
        origin: str,
        cased: bool | None = None,
        pseudo_token: str | None = None,
    ) -> "TextTokenizer":
        """Build from file contents: `name` is the model or vocabulary among `files`; a config beside it is heeded."""
        if PurePosixPath(name).suffix == ".json":
            content, keeps_case = wordpiece_in(files[name], origin)
            name, files = VOCABULARY_FILE, {**files, VOCABULARY_FILE: content}
            cased = keeps_case if cased is None else cased
        if PurePosixPath(name).suffix != ".txt":
            return cls(SentencePieceBackend(files[name], origin))
        try:
            saved = json.loads(files.get(CONFIG_FILE, b"{}"))
        except ValueError as error:
            raise DataError(f"{origin}: {CONFIG_FILE} is not JSON ({error}); restore or delete it") from None
        if cased is None and "do_lower_case" in saved:
            cased = not saved["do_lower_case"]
        pseudo = pseudo_token or saved.get("pseudo_token") or PSEUDO
        return cls(WordPieceBackend(files[name], cased=cased, pseudo_token=pseudo, origin=origin))

    def files_at(self, folder: str, *, model_max_length: int | None = None) -> dict[str, bytes]:
        """The files of this tokenizer as they lie in a folder, by name; whatever else lies there is none of them.

        Args:
            model_max_length: where Hugging Face's `truncation=True` is to cut, if elsewhere than before.
        """
        files, present = self.backend.files(), set(storage.names_in(folder))
        names = [*files, *[CONFIG_FILE] * (CONFIG_FILE in present)]
        there = {name: storage.read_bytes(storage.join(folder, name)) for name in names if name in present}
        if CONFIG_FILE in there:
            given = json.loads(there[CONFIG_FILE])
            config = {"auto_map": _AUTO_MAP} | given  # those of before 2026-11-28 lack it
            if model_max_length is not None:
                config["model_max_length"] = model_max_length
            if config != given:
                there[CONFIG_FILE] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
        return files | there

    def save(self, folder: str, *, model_max_length: int = 512) -> None:
        """Write the model file and `tokenizer_config.json`, so that `load` and `AutoTokenizer` find a tokenizer there.

        Args:
            folder: local, s3:// or gs://; made if missing.
            model_max_length: where Hugging Face's `truncation=True` cuts.
        """
        for name, content in {**self.backend.files(), CONFIG_FILE: self._config(model_max_length)}.items():
            storage.write_bytes(storage.join(str(folder), name), content)

    def _config(self, model_max_length: int) -> bytes:
        names = self.backend.special_tokens
        config = {
            "tokenizer_class": "PmlmTokenizer",
            "auto_map": _AUTO_MAP,
            "pmlm_fingerprint": self.fingerprint,
            "model_max_length": model_max_length,
            "split_special_tokens": True,
            "bos_token": names["sos"],
            "cls_token": names["sos"],
            "eos_token": names["eos"],
            "sep_token": names["eos"],
            "pad_token": names["pad"],
            "unk_token": names["unk"],
            "mask_token": names["mask"],
            "pseudo_token": names["pseudo"],
            **self.backend.settings(),
        }
        return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def train(
    texts: Iterable[str],
    *,
    vocab_size: int,
    model_type: str = "unigram",
    cased: bool = True,
    seed: int = 0,
    character_coverage: float = 0.9995,
    num_threads: int = DEFAULT_THREADS,
    byte_fallback: bool = False,
) -> TextTokenizer:
    """Train a SentencePiece tokenizer; see `sentencepiece_training.train_model` for the arguments and errors.

    >>> tokenizer = train(["the cat sat on the mat", "a cat and a mat"] * 9, vocab_size=20)
    >>> tokenizer.decode(tokenizer.encode(["the mat sat"])[0])
    'the mat sat'
    """
    model = train_model(
        texts,
        vocab_size=vocab_size,
        model_type=model_type,
        cased=cased,
        seed=seed,
        character_coverage=character_coverage,
        num_threads=num_threads,
        byte_fallback=byte_fallback,
    )
    return TextTokenizer(SentencePieceBackend(model))


def _fingerprint(backend: Backend) -> str:
    digest = hashlib.sha256(f"{backend.kind} {json.dumps(backend.settings(), sort_keys=True)}\n".encode())
    for name, content in sorted(backend.files().items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
