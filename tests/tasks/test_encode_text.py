"""Features of classification and regression: layout, truncation as BERT does it, labels, batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError
from pmlm_core.tasks.base import TextExample
from pmlm_core.tasks.encode_text import collate_text, encode_text, kept_lengths
from pmlm_core.tasks.registry import get_task

RTE, STSB = get_task("rte"), get_task("stsb")
SOS, PAD, EOS = 0, 1, 2


@pytest.fixture(scope="module")
def tokenizer(sample_tokenizer_dir: str) -> TextTokenizer:
    return TextTokenizer.load(sample_tokenizer_dir)


def ids_of(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode([text])[0].tolist()


def test_layout_of_one_text_and_of_a_pair(tokenizer):
    examples = [
        TextExample("0", 1, "the Time Traveller", label=RTE.labels[1]),
        TextExample("1", 2, "the machine", "a chair", label=RTE.labels[0]),
        TextExample("2", 3, "", "", label=None),
    ]
    one, pair, empty = encode_text(examples, tokenizer, RTE, 64)
    a, b = ids_of(tokenizer, "the machine"), ids_of(tokenizer, "a chair")
    text = ids_of(tokenizer, "the Time Traveller")
    assert one == {"input_ids": [SOS, *text, EOS], "token_type_ids": [0] * (len(text) + 2), "label": 1}
    assert pair["input_ids"] == [SOS, *a, EOS, *b, EOS]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert pair["label"] == 0
    assert empty == {"input_ids": [SOS, EOS, EOS], "token_type_ids": [0, 0, 1], "label": None}


@given(first=st.integers(0, 30), second=st.integers(0, 30), room=st.integers(2, 40))
def test_the_longer_text_is_shortened_token_by_token(first, second, room):
    a, b = first, second
    while a + b > room:  # google-research/bert, _truncate_seq_pair
        if a > b:
            a -= 1
        else:
            b -= 1
    assert kept_lengths(first, second, room) == (a, b)


def test_long_texts_lose_their_ends(tokenizer):
    long, short = "the Time Machine and the chair " * 20, "a chair"
    a, b = ids_of(tokenizer, long), ids_of(tokenizer, short)
    pair, other = encode_text([TextExample("0", 1, long, short), TextExample("1", 2, short, long)], tokenizer, RTE, 32)
    assert pair["input_ids"] == [SOS, *a[: 29 - len(b)], EOS, *b, EOS]
    assert other["input_ids"] == [SOS, *b, EOS, *a[: 29 - len(b)], EOS]
    (one,) = encode_text([TextExample("0", 1, long)], tokenizer, RTE, 32)
    assert one["input_ids"] == [SOS, *a[:30], EOS]


def test_what_cannot_be_encoded_is_named(tokenizer):
    with pytest.raises(ConfigError, match="max_length 4 leaves no room"):
        encode_text([TextExample("0", 1, "a", "b")], tokenizer, RTE, 4)
    with pytest.raises(DataError, match=r"rte, row 7 \(id x\): label 'maybe' is none of"):
        encode_text([TextExample("x", 7, "a", "b", label="maybe")], tokenizer, RTE, 32)
    with pytest.raises(DataError, match=r"stsb, row 7 .* 'high' is not a number"):
        encode_text([TextExample("x", 7, "a", "b", label="high")], tokenizer, STSB, 32)


def test_batches_are_padded_to_the_longest(tokenizer):
    examples = [TextExample(str(i), i, "the chair " * i, label=RTE.labels[i % 2]) for i in (3, 1, 2)]
    features = encode_text(examples, tokenizer, RTE, 64)
    batch = collate_text(features, PAD)
    lengths = [len(feature["input_ids"]) for feature in features]
    assert batch["input_ids"].shape == (3, max(lengths))
    for row, (feature, length) in enumerate(zip(features, lengths, strict=True)):
        assert batch["input_ids"][row].tolist() == feature["input_ids"] + [PAD] * (max(lengths) - length)
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (max(lengths) - length)
    assert batch["labels"].tolist() == [1, 1, 0]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    arrays = [{**f, "input_ids": np.array(f["input_ids"], np.int32)} for f in features]
    assert all(torch.equal(collate_text(arrays, PAD)[name], tensor) for name, tensor in batch.items())


def test_labels_of_a_batch(tokenizer):
    example = TextExample("0", 1, "a", "b", label="4")
    scored, unknown = encode_text([example, replace(example, label=None)], tokenizer, STSB, 32)
    batch = collate_text([scored, scored], PAD)
    assert batch["labels"].tolist() == [4.0, 4.0]
    assert batch["labels"].dtype == torch.float32
    assert "labels" not in collate_text([scored, unknown], PAD)
