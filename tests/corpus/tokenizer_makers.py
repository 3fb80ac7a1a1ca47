"""Makers of small tokenizers of every kind, for the tokenizer tests."""

import io
from collections import Counter

import sentencepiece as spm

from pmlm_core.corpus.tokenizer import TextTokenizer, train

KINDS = ("unigram", "bpe", "uncased", "bytes", "foreign", "wordpiece", "wordpiece_mask")


def make(kind: str, texts: list[str]) -> TextTokenizer:
    if kind == "foreign":
        return TextTokenizer.from_files("spiece.model", {"spiece.model": foreign_model(texts)}, origin="test")
    if kind.startswith("wordpiece"):
        pseudo = "[MASK]" if kind == "wordpiece_mask" else None
        return TextTokenizer.from_files(
            "vocab.txt", {"vocab.txt": bert_vocabulary(texts)}, origin="test", pseudo_token=pseudo
        )
    options = {"bpe": {"model_type": "bpe"}, "uncased": {"cased": False}, "bytes": {"byte_fallback": True}}
    return train(texts, vocab_size=700, seed=0, **options.get(kind, {}))


def foreign_model(texts: list[str], **options: object) -> bytes:
    """A SentencePiece model as other people train it, with a piece of text named as one of our special tokens."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        minloglevel=2,
        **{"vocab_size": 500, "user_defined_symbols": ["[MASK]", "[EOS]#"], "control_symbols": ["[CLS]"], **options},
    )
    return model.getvalue()


def bert_vocabulary(texts: list[str]) -> bytes:
    """An uncased vocabulary in BERT's layout: [PAD], unused ones, the special tokens, characters, frequent words."""
    words = Counter(word for text in texts for word in text.lower().split() if word.isascii() and word.isalpha())
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(9)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [*".,;!?'\"()[]<>-", *letters, *(f"##{c}" for c in letters), "##ing", "##ed", "##er"]
    tokens += [word for word, _ in words.most_common(300) if len(word) > 1]
    return "".join(f"{token}\n" for token in tokens).encode()
