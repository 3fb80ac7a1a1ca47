"""TextTokenizer with every backend: ids, no injection of special ids, cutting, saving, messages."""

import itertools
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.wordpiece import wordpiece
from tokenizer_makers import KINDS, bert_vocabulary, foreign_model, make

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.corpus.text_cuts import PART_CHARACTERS, cut
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import DataError

SPECIAL_TEXT = (
    *("[SOS]", "[PAD]", "[EOS]", "[UNK]", "[MASK]", "[PSEUDO]", "[CLS]", "[SEP]", "[unused1]", "[EOS]#"),
    *("<s>", "</s>", "<unk>", "<pad>", "<mask>", "<0x41>", "<|endoftext|>"),
)
PHRASES = st.lists(
    st.one_of(st.sampled_from(SPECIAL_TEXT), st.sampled_from([" ", "\n", "  ", "\0", "▁", "a", "the Time"]), st.text()),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def tokenizers(sample_texts: list[str]) -> dict[str, TextTokenizer]:
    return {kind: make(kind, sample_texts) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [*SPECIAL_TEXT, " ".join(SPECIAL_TEXT), "".join(SPECIAL_TEXT)])
def test_special_text_gives_no_special_id(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    for variant in (text, f"word {text} word", f"word{text}word", text.lower(), f"\n{text}\n" * 500):
        ids = set(tokenizer.encode([variant])[0].tolist())
        assert ids - {tokenizer.special_ids.unk} <= set(tokenizer.ordinary_ids.tolist())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(PHRASES, max_size=4))
def test_any_text_gives_ordinary_ids_and_each_text_its_own(tokenizers, kind, texts):
    tokenizer = tokenizers[kind]
    encoded = tokenizer.encode(texts)
    assert len(encoded) == len(texts)
    for text, ids in zip(texts, encoded, strict=True):
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert set(ids.tolist()) - {tokenizer.special_ids.unk} <= set(tokenizer.ordinary_ids.tolist())
        np.testing.assert_array_equal(tokenizer.encode([text])[0], ids)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_a_partition_of_special_and_others(tokenizers, kind):
    tokenizer = tokenizers[kind]
    special = set(tokenizer.special_ids.as_dict().values())
    ordinary = tokenizer.ordinary_ids
    assert len(special) == (5 if kind == "wordpiece_mask" else 6)
    assert not special & set(ordinary.tolist())
    assert np.all(np.diff(ordinary) > 0)
    assert ordinary[-1] < tokenizer.vocab_size
    assert len({tokenizer.backend.piece(i) for i in range(tokenizer.vocab_size)}) == tokenizer.vocab_size


def test_own_models_have_the_special_tokens_in_front(tokenizers):
    for kind in ("unigram", "bpe", "uncased", "bytes"):
        assert tokenizers[kind].special_ids == SpecialIds(0, 1, 2, 3, 4, 5)
        assert tokenizers[kind].ordinary_ids[0] == 6
        assert tokenizers[kind].vocab_size == 700


@pytest.mark.parametrize("kind", ["unigram", "bpe", "bytes", "foreign"])
def test_decoding_gives_the_prose_back(tokenizers, kind, sample_texts):
    tokenizer = tokenizers[kind]
    processor = tokenizer.backend._processor
    for text in sample_texts[:60]:
        ids = tokenizer.encode([text])[0]
        if tokenizer.special_ids.unk not in ids:  # rare characters have no piece
            assert tokenizer.decode(ids) == processor.decode(processor.encode(text))
            assert tokenizer.decode(ids).split() == text.replace("…", "...").split()


def test_bytes_spell_what_no_piece_covers(tokenizers):
    text = "a ☃ and a 龍"
    assert tokenizers["bytes"].decode(tokenizers["bytes"].encode([text])[0]) == text
    assert tokenizers["unigram"].special_ids.unk in tokenizers["unigram"].encode([text])[0]


def test_decoding_skips_special_ids_and_refuses_foreign_ones(tokenizers):
    for tokenizer in tokenizers.values():
        ids = tokenizer.encode(["the time"])[0].tolist()
        mixed = [tokenizer.special_ids.sos, *ids, tokenizer.special_ids.mask, tokenizer.special_ids.pseudo]
        assert tokenizer.decode(np.array(mixed)) == tokenizer.decode(ids) == "the time"
        with pytest.raises(ValueError, match=f"0..{tokenizer.vocab_size - 1}"):
            tokenizer.decode([tokenizer.vocab_size])


def test_uncased_folds_case(tokenizers):
    upper, lower = tokenizers["uncased"].encode(["THE TIME Machine", "the time machine"])
    np.testing.assert_array_equal(upper, lower)
    upper, lower = tokenizers["unigram"].encode(["THE TIME Machine", "the time machine"])
    assert upper.tolist() != lower.tolist()


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("ab \n\u00a0é")), size=st.integers(1, 9), extra=st.integers(0, 9))
def test_cuts_join_to_the_text_and_fall_on_white_space(text, size, extra):
    parts = list(cut(text, size, size + extra))
    assert "".join(parts) == text
    assert all(size <= len(part) <= size + extra for part in parts[:-1])
    for part, after in itertools.pairwise(parts):
        assert after[0] in " \n" or len(part) == size + extra


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_changes_no_token(tokenizers, kind, sample_texts):
    backend = tokenizers[kind].backend
    assert backend.can_cut
    text = "\n\n".join(sample_texts[:12]) + " \n [MASK] ☃\n" + "  \n x"
    whole = backend.encode([text])[0]
    for size in (1, 7, 100):
        np.testing.assert_array_equal(np.concatenate(backend.encode(list(cut(text, size)))), whole)
    assert len(text) > PART_CHARACTERS
    np.testing.assert_array_equal(tokenizers[kind].encode(["short", text, ""])[1], whole)


def test_a_model_with_pieces_across_spaces_is_not_cut(sample_texts):
    model = foreign_model(sample_texts[:60], split_by_whitespace=False, vocab_size=500)
    tokenizer = TextTokenizer.from_files("m.model", {"m.model": model}, origin="test")
    assert any("▁" in tokenizer.backend.piece(i)[1:] for i in range(tokenizer.vocab_size))
    assert not tokenizer.backend.can_cut
    text = "\n".join(sample_texts[:20])
    raw = spm.SentencePieceProcessor(model_proto=model).encode(text)
    assert (tokenizer.encode([text])[0] - 6).tolist() == [i if i else -3 for i in raw]


def test_foreign_ids_follow_the_six_special_ones(tokenizers, sample_texts):
    tokenizer = tokenizers["foreign"]
    raw = tokenizer.backend._processor
    assert tokenizer.vocab_size == 6 + raw.get_piece_size()
    for text in [*sample_texts[:20], "☃ [MASK] <s> [CLS]"]:
        expected = [3 if i == raw.unk_id() else 6 + i for i in raw.encode(text)]
        assert tokenizer.encode([text])[0].tolist() == expected
    mask = tokenizer.encode(["[MASK]"])[0].tolist()
    assert [tokenizer.backend.piece(i) for i in mask][-1] == "[MASK]#"
    assert not {6, 7, 8, 9} & set(tokenizer.ordinary_ids.tolist())  # <unk> <s> </s> [CLS] of the foreign model


def test_wordpiece_agrees_with_the_plain_algorithm(tokenizers, sample_texts):
    tokenizer = tokenizers["wordpiece"]
    tokens = bert_vocabulary(sample_texts).decode().split("\n")[:-1]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    texts = [*sample_texts[:80], "Crème brûlée, ÉTÉ!", "x" * 101, "[MASK] (a) #b##c", "a\0b\u200bc\u00a0d\te"]
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert ids.tolist() == wordpiece(text, vocabulary, lower=True)


def test_wordpiece_keeps_its_numbering(tokenizers, sample_texts):
    n_tokens = bert_vocabulary(sample_texts).count(b"\n")
    own, shared = tokenizers["wordpiece"], tokenizers["wordpiece_mask"]
    assert own.special_ids == SpecialIds(sos=11, pad=0, eos=12, unk=10, mask=13, pseudo=n_tokens)
    assert (own.vocab_size, shared.vocab_size) == (n_tokens + 1, n_tokens)
    assert shared.special_ids.pseudo == shared.special_ids.mask == 13
    assert own.ordinary_ids[0] == 14  # unused ones come before
    assert own.fingerprint != shared.fingerprint


def test_wordpiece_case_is_seen_or_told(sample_texts):
    uncased = bert_vocabulary(sample_texts)
    cased = uncased + b"London\n"
    made = {
        (name, told): TextTokenizer.from_files("vocab.txt", {"vocab.txt": data}, origin="t", cased=told)
        for name, data in (("cased", cased), ("uncased", uncased))
        for told in (None, True)
    }
    assert [t.backend.cased for t in made.values()] == [True, True, False, True]
    assert made["uncased", None].fingerprint != made["uncased", True].fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_pickled_it_stays_the_same(tokenizers, kind, tmp_path, sample_texts):
    tokenizer = tokenizers[kind]
    tokenizer.save(str(tmp_path / "deep" / "folder"))
    for again in (TextTokenizer.load(str(tmp_path / "deep" / "folder")), pickle.loads(pickle.dumps(tokenizer))):
        assert again.fingerprint == tokenizer.fingerprint
        assert again.special_ids == tokenizer.special_ids
        for a, b in zip(again.encode(sample_texts[:5]), tokenizer.encode(sample_texts[:5]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_fingerprints_tell_tokenizers_apart(tokenizers):
    assert len({tokenizer.fingerprint for tokenizer in tokenizers.values()}) == len(KINDS)


def test_a_model_file_alone_is_enough(tokenizers, tmp_path, sample_texts):
    tokenizers["unigram"].save(str(tmp_path))
    shutil.copy(tmp_path / "tokenizer.model", tmp_path / "other.model")
    assert TextTokenizer.load(str(tmp_path / "other.model")).fingerprint == tokenizers["unigram"].fingerprint
    (tmp_path / "albert").mkdir()
    (tmp_path / "albert" / "spiece.model").write_bytes(foreign_model(sample_texts))
    assert TextTokenizer.load(str(tmp_path / "albert")).fingerprint == tokenizers["foreign"].fingerprint
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_bytes(bert_vocabulary(sample_texts).replace(b"\n", b"\r\n"))
    windows = TextTokenizer.load(str(tmp_path / "bert"))
    assert windows.vocab_size == tokenizers["wordpiece"].vocab_size


def test_unpaired_surrogates_count_as_replacement_characters(tokenizers):
    for tokenizer in tokenizers.values():
        broken, mended = tokenizer.encode(["the \ud800 time", "fine"]), tokenizer.encode(["the \ufffd time", "fine"])
        assert [ids.tolist() for ids in broken] == [ids.tolist() for ids in mended]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "no tokenizer there"),
        ("tokenizer.model", b"not a model", "not a SentencePiece model"),
        ("tokenizer.model", b"", "not a SentencePiece model"),
        ("vocab.txt", b"a\nb\n", r"no \[CLS\], \[PAD\], \[SEP\], \[UNK\], \[MASK\] among its 2 tokens"),
        ("vocab.txt", b"a\nb\na\n", "token 'a' stands on line 1 and again on line 3"),
        ("vocab.txt", b"\xff\n", "not UTF-8"),
    ],
)
def test_what_is_not_a_tokenizer_is_named(tmp_path: Path, name, content, message):
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        TextTokenizer.load(str(tmp_path))
    assert str(tmp_path) in str(raised.value)
