"""Offsets of tokens in the original text: any text with every tokenizer, and cases known by hand."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_makers import KINDS, make

from pmlm_core.corpus.offsets import is_blank, mend, positions_before_mending
from pmlm_core.corpus.text_cuts import PART_CHARACTERS
from pmlm_core.corpus.tokenizer import TextTokenizer

TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            ["the Time", " ", "  ", "\n\n", "½", "ﬁne", "cafe\u0301", "x\u200b", "ｃａｔ", "…", "İ", "각", "´", "ﷺ"]
        ),
        st.sampled_from(
            ["\ud83d\ude00", "\ud800", "\udc00", "☃", "龍", "\0", "▁", "\ufffd", "\u00ad", "ß", "\u0301", "."]
        ),
    ),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def tokenizers(sample_texts: list[str]) -> dict[str, TextTokenizer]:
    return {kind: make(kind, sample_texts) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300)
@given(text=TEXTS)
@example(text="")
@example(text=" \n ")
@example(text="\u0301a")
def test_ids_are_encodes_and_spans_cover_the_text_in_order(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    ids, starts, ends = tokenizer.encode_with_offsets(text)
    np.testing.assert_array_equal(ids, tokenizer.encode([text])[0])
    assert ids.dtype == starts.dtype == ends.dtype == np.int32
    assert len(ids) == len(starts) == len(ends)
    assert (starts <= ends).all()
    assert (starts >= 0).all()
    assert (ends <= len(text)).all()
    standing = [(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True) if start < end]
    for (start, end), (next_start, next_end) in itertools.pairwise(standing):
        assert start <= next_start
        assert end <= next_end
    covered = np.zeros(len(text), bool)
    for start, end in standing:
        covered[start:end] = True
    left_out = {c for c, is_covered in zip(text, covered, strict=True) if not is_covered}
    assert all(_may_be_left_out(c, kind) for c in left_out), left_out


def _may_be_left_out(c: str, kind: str) -> bool:
    if is_blank(c) or unicodedata.category(c) == "Cs":  # an unpaired surrogate is U+FFFD
        return True
    # WordPiece throws all of Unicode's "other" characters away, and marks with nothing before them.
    return kind.startswith("wordpiece") and unicodedata.category(c)[0] in "CM"


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_prose_spell_their_words(tokenizers, kind, sample_texts):
    tokenizer = tokenizers[kind]
    for text in sample_texts[:30]:
        ids, starts, ends = tokenizer.encode_with_offsets(text)
        for token, start, end in zip(ids.tolist(), starts, ends, strict=True):
            if token == tokenizer.special_ids.unk:
                continue
            piece = tokenizer.backend.piece(token).replace("▁", "").removeprefix("##")
            said = unicodedata.normalize("NFKC", text[start:end])
            if piece.startswith("<0x") or "…" in text[start:end]:
                continue
            assert piece.casefold() == said.casefold()


@pytest.mark.parametrize("kind", KINDS)
def test_long_text_is_cut_and_counted_on(tokenizers, kind, sample_texts):
    text = "\n\n".join(sample_texts[:20])
    assert len(text) > 2 * PART_CHARACTERS
    ids, starts, ends = tokenizers[kind].encode_with_offsets(text)
    np.testing.assert_array_equal(ids, tokenizers[kind].encode([text])[0])
    words = text.split()
    assert text[starts[-1] : ends[-1]] in words[-1]
    assert (np.diff(starts[starts < ends]) >= 0).all()


def spans(tokenizer: TextTokenizer, text: str) -> list[str]:
    _, starts, ends = tokenizer.encode_with_offsets(text)
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def test_cases_known_by_hand(tokenizers):
    sentencepiece, wordpiece = tokenizers["unigram"], tokenizers["wordpiece"]
    assert spans(sentencepiece, "  The  \n time. ") == ["The", "time", "."]
    assert spans(wordpiece, "  The  \n time. ") == ["The", "time", "."]
    assert spans(wordpiece, "(Cafe\u0301)") == ["(", "C", "a", "f", "e\u0301", ")"]
    assert spans(wordpiece, "CAFÉ!") == ["C", "A", "F", "É", "!"]
    # One character, three tokens: each has it whole. A snowman in bytes likewise.
    assert spans(sentencepiece, "a…") == ["a", "…", "…", "…"]
    assert spans(tokenizers["bytes"], "a ☃") == ["a", "", "☃", "☃", "☃"]
    # "ﬁ" is "fi", whose f ends one token and whose i starts the next.
    assert "".join(dict.fromkeys(spans(sentencepiece, "ﬁne"))) in ("ﬁne", "ﬁﬁne")


def test_surrogates_are_counted_as_the_text_has_them(tokenizers):
    text = "the \ud83d\ude00 time \ud800 time"
    assert mend(text) == "the \U0001f600 time \ufffd time"
    assert [mend(text)[i] for i in (0, 4, 6)] == ["t", "\U0001f600", "t"]
    assert positions_before_mending(text).tolist() == [0, 1, 2, 3, 4, *range(6, len(text) + 1)]
    for tokenizer in tokenizers.values():
        said = spans(tokenizer, text)
        assert "\ud83d\ude00" in said
        joined = "".join(dict.fromkeys(said))
        assert joined.startswith("the\ud83d\ude00time")
