"""Training: equal input gives equal bytes, special text makes no pieces, and what cannot work is said."""

import pytest

from pmlm_core.corpus.tokenizer import train
from pmlm_core.errors import ConfigError, DataError


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_equal_input_gives_equal_bytes(sample_texts, model_type):
    models = [train(iter(sample_texts), vocab_size=500, model_type=model_type, seed=s).backend.model for s in (0, 0)]
    assert models[0] == models[1]
    other = train(sample_texts[1:], vocab_size=500, model_type=model_type, seed=0)
    assert other.backend.model != models[0]


def test_options_decide_the_model(sample_texts):
    def options(**given):
        return train(sample_texts, vocab_size=600, **given).fingerprint

    prints = [options(), options(cased=False), options(model_type="bpe"), options(byte_fallback=True)]
    assert len(set(prints)) == 4


def test_special_text_in_the_corpus_makes_no_piece(sample_texts):
    texts = [f"[MASK] {text} [EOS][PSEUDO]" for text in sample_texts] + ["[MASK][MASK] [SOS]"] * 500
    for model_type in ("unigram", "bpe"):
        tokenizer = train(texts, vocab_size=600, model_type=model_type)
        assert tokenizer.special_ids.mask not in tokenizer.encode(["[MASK] [MASK][MASK]"])[0]


def test_long_texts_are_all_used(sample_texts):
    # SentencePiece by itself leaves out sentences over 4192 bytes without a word.
    whole = train(["x y"] * 9 + [" ".join(sample_texts) + " Żółć" * 300], vocab_size=500, character_coverage=1.0)
    ids = whole.encode(["Żółć the"])[0]
    assert whole.special_ids.unk not in ids
    assert len(ids) <= 3
    unspaced = train(["x y z"] * 9 + ["龍" * 20_000], vocab_size=12, character_coverage=1.0)
    assert unspaced.special_ids.unk not in unspaced.encode(["龍"])[0]


def test_nul_and_surrogates_do_not_stop_it(sample_texts):
    tokenizer = train(["a\0b \ud800c", *sample_texts], vocab_size=500)
    assert tokenizer.vocab_size == 500


@pytest.mark.parametrize("texts", [[], ["", "  \n "]])
def test_no_text_is_said(texts):
    with pytest.raises(DataError, match="no text to train"):
        train(texts, vocab_size=500)


def test_impossible_vocabulary_is_said(sample_texts):
    with pytest.raises(ConfigError, match=r"cannot make 90000 unigram pieces.*too high.*change vocab_size"):
        train(sample_texts[:20], vocab_size=90_000)
    with pytest.raises(ConfigError, match=r"cannot make 20 bpe pieces"):
        train(sample_texts, vocab_size=20, model_type="bpe")
    with pytest.raises(ConfigError, match="must be one of unigram, bpe"):
        train(sample_texts, vocab_size=500, model_type="word")
