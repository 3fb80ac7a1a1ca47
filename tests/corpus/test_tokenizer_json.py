"""`tokenizer.json`: what it holds as a vocabulary; refused is what would give other ids here."""

import copy
import json
from typing import Any

import pytest

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.corpus.tokenizer_json import wordpiece_in
from pmlm_core.errors import DataError

BERTS = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
WORDPIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {"b": 2, "[PAD]": 0, "a": 1},
}
SAVED: dict[str, Any] = {
    "added_tokens": [{"id": 0, "content": "[PAD]"}, {"id": 3, "content": "[NEW]"}],
    "normalizer": BERTS,
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": WORDPIECE,
}


def saved(**changes: Any) -> bytes:
    return json.dumps({**copy.deepcopy(SAVED), **changes}).encode()


def test_tokens_stand_in_the_order_of_their_ids_added_ones_too():
    assert wordpiece_in(saved(), "x") == (b"[PAD]\na\nb\n[NEW]\n", False)


@pytest.mark.parametrize(
    ("normalizer", "cased"),
    [
        (None, None),
        ({**BERTS, "lowercase": False}, True),
        ({**BERTS, "lowercase": True, "strip_accents": True}, False),
        ({**BERTS, "lowercase": False, "strip_accents": False}, True),
    ],
)
def test_the_normalizer_tells_whether_case_is_kept(normalizer, cased):
    assert wordpiece_in(saved(normalizer=normalizer), "x")[1] is cased


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as a tokenizer"),
        (b"[]", "cannot be read as a tokenizer"),
        (saved(model={"type": "BPE", "vocab": {}}), "a tokenizer that is BPE"),
        (saved(pre_tokenizer={"type": "Whitespace"}), "otherwise than BERT's"),
        (saved(pre_tokenizer=None), "otherwise than BERT's does .pre_tokenizer None"),
        (saved(model={**WORDPIECE, "max_input_chars_per_word": 50}), "max_input_chars_per_word 50"),
        (saved(model={**WORDPIECE, "continuing_subword_prefix": ""}), "continuing_subword_prefix ''"),
        (saved(model={**WORDPIECE, "unk_token": "<unk>"}), "unk_token '<unk>'"),
        (saved(normalizer={**BERTS, "strip_accents": False}), "leaves accents on"),
        (saved(normalizer={**BERTS, "lowercase": False, "strip_accents": True}), "takes accents off"),
        (saved(normalizer={**BERTS, "clean_text": False}), "clean_text False"),
        (saved(normalizer={**BERTS, "handle_chinese_chars": False}), "handle_chinese_chars False"),
        (saved(normalizer={"type": "Lowercase"}), "normalizer is Lowercase"),
        (saved(normalizer={"type": "BertNormalizer"}), "cannot be read as a tokenizer"),
        *(
            (saved(normalizer={"type": "Sequence", "normalizers": [{"type": kind} for kind in kinds]}), "is Sequence")
            for kinds in (["NFKC", "Lowercase"], ["NFD", "Lowercase"], ["NFC"], ["NFD", "StripAccents"])
        ),
        (saved(added_tokens=[{"id": 9, "content": "[NEW]"}]), "are not 0 to 3"),
        (saved(model={"type": "WordPiece", "vocab": {"a\nb": 1, "c": 2}}), "the end of a line"),
    ],
)
def test_what_would_give_other_ids_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        wordpiece_in(content, "x")


@pytest.mark.parametrize(
    ("normalizer", "config", "ids"),
    [
        (BERTS, {}, [5, 6]),
        ({**BERTS, "lowercase": False}, {}, [1, 6]),
        (None, {"do_lower_case": True}, [5, 6]),
    ],
)
def test_a_folder_with_nothing_else_is_a_tokenizer(tmp_path, normalizer, config, ids):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "NATO"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    content = saved(added_tokens=[], normalizer=normalizer, model={"type": "WordPiece", "vocab": vocabulary})
    (tmp_path / "tokenizer.json").write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = TextTokenizer.load(str(tmp_path))
    assert tokenizer.encode(["The cat"])[0].tolist() == ids
    tokenizer.save(str(tmp_path / "again"))
    assert TextTokenizer.load(str(tmp_path / "again")).fingerprint == tokenizer.fingerprint
