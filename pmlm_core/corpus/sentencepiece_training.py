"""Training a SentencePiece model whose bytes depend on its input and its options only."""

import io
from collections.abc import Iterable, Iterator

import sentencepiece as spm

from pmlm_core.corpus.offsets import mend
from pmlm_core.corpus.special import EOS, MASK, PAD, PSEUDO, SOS, UNK, SpecialIds
from pmlm_core.corpus.text_cuts import cut
from pmlm_core.errors import ConfigError, DataError

MODEL_TYPES = ("unigram", "bpe")
# The number of threads decides the order in which unigram training adds up floats, so it is an option with a fixed
# default and not the number of cores: the same command gives the same model everywhere.
DEFAULT_THREADS = 16
# SentencePiece leaves out longer sentences without a word; texts are cut well below.
_SENTENCE_CHARACTERS = 2000
_SENTENCE_LIMIT_CHARACTERS = 4000
_SENTENCE_LIMIT_BYTES = 4 * _SENTENCE_LIMIT_CHARACTERS


def train_model(
    texts: Iterable[str],
    *,
    vocab_size: int,
    model_type: str,
    cased: bool,
    seed: int,
    character_coverage: float,
    num_threads: int,
    byte_fallback: bool,
) -> bytes:
    """Train and return the serialized model, its special pieces at ids 0..5 (`special.py`).

    Args:
        texts: documents or paragraphs; read once, held by SentencePiece (count some 20 bytes of memory a byte).
        vocab_size: pieces, the six special ones included (and 256 bytes with `byte_fallback`).
        model_type: "unigram" or "bpe".
        cased: False folds case (NFKC with case folding) in training and in every later use.
        seed: for SentencePiece's own generator.
        character_coverage: share of the text's characters that get a piece; the rest becomes `[UNK]` (or bytes).
        num_threads: part of what decides the model, see `DEFAULT_THREADS`.
        byte_fallback: spell unknown characters as UTF-8 bytes instead of `[UNK]`.

    Raises:
        ConfigError: an option is out of range, or the text cannot fill or fit the vocabulary.
        DataError: no text at all.
    """
    if model_type not in MODEL_TYPES:
        raise ConfigError(f"model_type is '{model_type}'; it must be one of {', '.join(MODEL_TYPES)}")
    ids = SpecialIds()
    sentences = _Counted(_sentences(texts))
    model = io.BytesIO()
    spm.set_random_generator_seed(seed & 0xFFFFFFFF)
    spm.set_min_log_level(2)
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            normalization_rule_name="nmt_nfkc" if cased else "nmt_nfkc_cf",
            byte_fallback=byte_fallback,
            num_threads=num_threads,
            max_sentence_length=_SENTENCE_LIMIT_BYTES,
            minloglevel=2,
            bos_id=ids.sos,
            bos_piece=SOS,
            pad_id=ids.pad,
            pad_piece=PAD,
            eos_id=ids.eos,
            eos_piece=EOS,
            unk_id=ids.unk,
            unk_piece=UNK,
            control_symbols=[MASK, PSEUDO],
        )
    except RuntimeError as error:
        if not sentences.count:
            raise DataError("there is no text to train a tokenizer on; check the input and the sample size") from None
        raise ConfigError(
            f"SentencePiece cannot make {vocab_size} {model_type} pieces of this text: {_reason(error)}; "
            "change vocab_size or give more text"
        ) from error
    return model.getvalue()


def _reason(error: RuntimeError) -> str:
    """SentencePiece's own words without the source line and the failed condition in front."""
    text = str(error)
    return text.rpartition("] ")[2].strip().rstrip(".") or text


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for part in cut(text, size=_SENTENCE_CHARACTERS, hard_limit=_SENTENCE_LIMIT_CHARACTERS):
            # A NUL cannot be a piece, and an unpaired surrogate cannot be UTF-8.
            sentence = mend(part.replace("\0", " ")).strip()
            if sentence:
                yield sentence


class _Counted:
    def __init__(self, items: Iterator[str]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        for item in self._items:
            self.count += 1
            yield item
