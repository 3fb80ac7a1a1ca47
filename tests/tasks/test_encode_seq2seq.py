"""Features and batches of generation: layout, truncation, word-drop, and the batch as the model takes it."""

import numpy as np
import pytest
import torch

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError
from pmlm_core.model import PmlmConfig, PmlmForConditionalGeneration
from pmlm_core.tasks.base import SourceTarget
from pmlm_core.tasks.encode_seq2seq import collate_seq2seq, decode_targets, encode_seq2seq

SOS, PAD, EOS, MASK = 0, 1, 2, 4
EXAMPLES = [
    SourceTarget("0", 1, "the Time Traveller came back late", "he came back"),
    SourceTarget("1", 2, "the machine", "a chair of brass and ivory"),
    SourceTarget("2", 3, "", ""),
]


@pytest.fixture(scope="module")
def tokenizer(sample_tokenizer_dir: str) -> TextTokenizer:
    return TextTokenizer.load(sample_tokenizer_dir)


def test_layout_and_a_missing_target(tokenizer):
    features = encode_seq2seq([*EXAMPLES, SourceTarget("3", 4, "a chair")], tokenizer, 64, 32)
    for example, feature in zip(EXAMPLES, features, strict=False):
        source, target = tokenizer.encode([example.source, example.target])
        assert feature == {"input_ids": [SOS, *source, EOS], "target_ids": [*target, EOS]}
        assert all(type(i) is int for i in feature["input_ids"] + feature["target_ids"])
    assert features[2] == {"input_ids": [SOS, EOS], "target_ids": [EOS]}
    assert features[3]["target_ids"] == []


def test_encoding_in_chunks_is_encoding_at_once(tokenizer):
    chunks = [feature for example in EXAMPLES for feature in encode_seq2seq([example], tokenizer, 8, 6)]
    assert chunks == encode_seq2seq(EXAMPLES, tokenizer, 8, 6)


def test_what_is_too_long_is_cut_at_its_end(tokenizer):
    (whole,) = encode_seq2seq(EXAMPLES[:1], tokenizer, 64, 32)
    (cut,) = encode_seq2seq(EXAMPLES[:1], tokenizer, 5, 3)
    assert cut == {"input_ids": [*whole["input_ids"][:4], EOS], "target_ids": [*whole["target_ids"][:2], EOS]}
    with pytest.raises(ConfigError, match="no room for text"):
        encode_seq2seq(EXAMPLES, tokenizer, 2, 9)


def test_batch_is_padded_and_shifted(tokenizer):
    features = [
        {"input_ids": [SOS, 7, 8, EOS], "target_ids": [9, EOS]},
        {"input_ids": [SOS, EOS], "target_ids": [10, 11, EOS]},
    ]
    batch = collate_seq2seq(features, tokenizer.special_ids)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[SOS, 7, 8, EOS], [SOS, EOS, PAD, PAD]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "labels": [[9, EOS, -100], [10, 11, EOS]],
        "decoder_input_ids": [[SOS, 9, EOS], [SOS, 10, 11]],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    features[1]["target_ids"] = []
    assert set(collate_seq2seq(features, tokenizer.special_ids)) == {"input_ids", "attention_mask"}


def test_word_drop_is_a_function_of_the_stream_alone_and_meets_its_share(tokenizer):
    draw = np.random.default_rng(0)
    rows = [{"input_ids": [SOS, EOS], "target_ids": [*draw.integers(6, 90, n).tolist(), EOS]} for n in (400, 300)]
    options = {"special_ids": tokenizer.special_ids, "target_mask_prob": 0.4}
    plain = collate_seq2seq(rows, tokenizer.special_ids)
    assert torch.equal(collate_seq2seq(rows, **options)["decoder_input_ids"], plain["decoder_input_ids"])
    batch = collate_seq2seq(rows, **options, streams=[5, 2**64 - 1])
    assert torch.equal(batch["labels"], plain["labels"])
    seen, true = batch["decoder_input_ids"], plain["decoder_input_ids"]
    dropped = seen != true
    assert (seen[dropped] == MASK).all()
    assert not dropped[:, 0].any()
    assert not dropped[1, 302:].any()
    share = dropped.sum().item() / 701
    assert abs(share - 0.4) < 4 * (0.4 * 0.6 / 701) ** 0.5
    again = collate_seq2seq(rows[::-1], **options, streams=[2**64 - 1, 5])["decoder_input_ids"]
    assert torch.equal(again.flip(0), seen)
    other = collate_seq2seq(rows, **options, streams=[6, 2**64 - 1])["decoder_input_ids"]
    assert torch.equal(other[1], seen[1])
    assert not torch.equal(other[0], seen[0])
    all_gone = collate_seq2seq(rows, tokenizer.special_ids, target_mask_prob=1.0, streams=[0, 1])
    assert (all_gone["decoder_input_ids"][0, 1:] == MASK).all()


def test_contradictory_options_are_refused(tokenizer):
    rows = [{"input_ids": [SOS, EOS], "target_ids": [EOS]}]
    with pytest.raises(ConfigError, match="from 0 to 1"):
        collate_seq2seq(rows, tokenizer.special_ids, target_mask_prob=1.5, streams=[0])
    with pytest.raises(ConfigError, match="one a row"):
        collate_seq2seq(rows, tokenizer.special_ids, target_mask_prob=0.5, streams=[0, 1])


def test_the_model_takes_the_batch_and_its_rows_come_back_as_text(tokenizer):
    config = PmlmConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    torch.manual_seed(0)
    model = PmlmForConditionalGeneration(config).eval()
    features = encode_seq2seq(EXAMPLES, tokenizer, 64, 32)
    batch = collate_seq2seq(features, tokenizer.special_ids)
    output = model(**batch)
    assert output.num_predictions.item() == sum(len(feature["target_ids"]) for feature in features)
    without = {name: tensor for name, tensor in batch.items() if name != "decoder_input_ids"}
    torch.testing.assert_close(model(**without).loss, output.loss)
    dropped = collate_seq2seq(features, tokenizer.special_ids, target_mask_prob=0.9, streams=[1, 2, 3])
    assert model(**dropped).loss != output.loss
    sequences = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=5)
    texts = decode_targets(sequences, tokenizer)
    assert len(texts) == 3
    assert decode_targets([[SOS, *features[0]["target_ids"], PAD, 99]], tokenizer) == [EXAMPLES[0].target]
