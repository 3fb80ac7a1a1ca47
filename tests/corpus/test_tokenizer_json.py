"""`tokenizer.json`: what it holds as a vocabulary; refused is what would give other ids here."""

import copy
import json
from typing import Any

import pytest

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.corpus.tokenizer_json import wordpiece_in
from pmlm_core.errors import DataError

SAVED: dict[str, Any] = {
    "added_tokens": [{"id": 0, "content": "[PAD]"}, {"id": 3, "content": "[NEW]"}],
    "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"b": 2, "[PAD]": 0, "a": 1}},
}


def saved(**changes: Any) -> bytes:
    return json.dumps({**copy.deepcopy(SAVED), **changes}).encode()


def test_tokens_stand_in_the_order_of_their_ids_added_ones_too():
    assert wordpiece_in(saved(), "x") == (b"[PAD]\na\nb\n[NEW]\n", False)


@pytest.mark.parametrize(
    ("normalizer", "cased"),
    [
        (None, None),
        ({"type": "BertNormalizer", "lowercase": False, "strip_accents": None}, True),
        ({"type": "BertNormalizer", "lowercase": True, "strip_accents": True}, False),
        ({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}, False),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, True),
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
        (saved(normalizer={"type": "BertNormalizer", "lowercase": True, "strip_accents": False}), "leaves accents on"),
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
        ({"type": "BertNormalizer", "lowercase": True}, {}, [5, 6]),
        ({"type": "BertNormalizer", "lowercase": False}, {}, [1, 6]),
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
