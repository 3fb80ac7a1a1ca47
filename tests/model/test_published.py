"""Published checkpoints: the same numbers as the model they come from, and a sentence for what does not fit."""

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import CheckpointError
from pmlm_core.model.masked_lm import PmlmForMaskedLM
from pmlm_core.model.published import convert
from tests.oracles.pseudo_mask import t5_bucket

IDS = SpecialIds(sos=2, pad=0, eos=3, unk=1, mask=4, pseudo=4)
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "initializer_range": 0.3,
    "layer_norm_eps": 1e-7,
}
BINS, FARTHEST = 8, 12


@pytest.fixture
def bert() -> BertForMaskedLM:
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SIZES, attn_implementation="eager")).eval()
    for parameter in model.parameters():  # biases and LayerNorms, too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def inputs() -> dict[str, Tensor]:
    ids = torch.randint(5, 60, (3, 20), generator=torch.Generator().manual_seed(1))
    segments = (torch.arange(20) > 8).long().expand(3, -1)
    return {"input_ids": ids, "token_type_ids": segments}


def as_unilm(weights: dict[str, Tensor], bias_HM: Tensor) -> dict[str, Tensor]:
    """BERT's weights in the form that UniLMv2 was published in."""
    made = {}
    for name, tensor in weights.items():
        if ".attention.self." not in name:
            if not name.startswith("cls.predictions.decoder"):
                made[name] = tensor
            continue
        stem, part, kind = name.rsplit(".", 2)
        if part == "query" and kind == "weight":
            parts = [weights[f"{stem}.{each}.weight"] for each in ("query", "key", "value")]
            made[f"{stem}.qkv_linear.weight"] = torch.cat(parts)
        elif kind == "bias" and part != "key":
            made[f"{stem}.{part[0]}_bias"] = tensor
    return {**made, "bert.encoder.rel_pos_bias.weight": bias_HM}


def ours(converted) -> PmlmForMaskedLM:
    model = PmlmForMaskedLM(converted.model.config).eval()
    model.load_state_dict(converted.model.state_dict())
    return model


@torch.no_grad()
def test_bert_gives_the_same_logits(bert):
    converted = convert(bert.state_dict(), SIZES, IDS, "x")
    assert converted.has_head
    assert converted.left_out == ()
    torch.testing.assert_close(ours(converted)(**inputs()).logits, bert(**inputs()).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_unilm_gives_the_logits_of_bert_with_its_relative_bias_added_to_the_scores(bert):
    for layer in bert.bert.encoder.layer:
        layer.attention.self.key.bias.zero_()
    bias_HM = torch.randn(4, BINS)
    config = {**SIZES, "rel_pos_bins": BINS, "max_rel_pos": FARTHEST, "source_type_id": 0, "target_type_id": 1}
    converted = convert(as_unilm(bert.state_dict(), bias_HM), config, IDS, "x")
    assert (converted.model.config.rel_pos_bins, converted.model.config.max_rel_pos) == (BINS, FARTHEST)
    buckets = torch.tensor([[t5_bucket(key - query, BINS, FARTHEST) for key in range(20)] for query in range(20)])
    added = bias_HM[:, buckets].expand(3, -1, -1, -1)  # a mask of floats is added to the scores
    theirs = bert(**inputs(), attention_mask=added).logits
    assert not torch.allclose(theirs, bert(**inputs()).logits, atol=1e-2)
    torch.testing.assert_close(ours(converted)(**inputs()).logits, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_segments_of_source_and_target_become_0_and_1(bert):
    weights = bert.state_dict()
    six = torch.randn(6, 32)
    weights["bert.embeddings.token_type_embeddings.weight"] = six
    config = {**SIZES, "source_type_id": 4, "target_type_id": 5}
    converted = convert(weights, config, IDS, "x")
    assert torch.equal(converted.model.pmlm.embeddings.token_type.weight, six[[4, 5, 0, 1, 2, 3]])
    for one in (0, 3):  # for source and target alike
        both = convert(weights, {**config, "source_type_id": one, "target_type_id": one}, IDS, "x")
        rows = both.model.pmlm.embeddings.token_type.weight
        assert rows.shape == six.shape
        assert torch.equal(rows[:2], six[[one, one]])


def test_half_precision_old_names_poolers_and_a_missing_head(bert):
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor.half()
        for name, tensor in bert.bert.state_dict().items()
    }
    weights["pooler.dense.weight"] = torch.zeros(32, 32)
    converted = convert(weights, SIZES, IDS, "x")
    assert not converted.has_head
    assert converted.left_out == ("pooler.dense.weight",)
    assert converted.model.pmlm.embeddings.norm.weight.dtype == torch.float32
    assert torch.equal(
        converted.model.pmlm.embeddings.norm.weight, bert.bert.embeddings.LayerNorm.weight.half().float()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bert.encoder.layer.1.output.dense.bias"), r"1 weights are missing.*layers\.1\.output\.bias"),
        (lambda w: w.pop("bert.encoder.layer.0.attention.self.key.weight"), r"missing.*layers\.0\.qkv_weight"),
        (lambda w: w.update({"cls.predictions.decoder.weight": torch.zeros(60, 32)}), "here the two are one weight"),
        (lambda w: w.pop("bert.embeddings.word_embeddings.weight"), "give a checkpoint of UniLMv2 or BERT"),
        (lambda w: w.update({"bert.encoder.layer.0.intermediate.dense.weight": torch.zeros(9, 32)}), r"\[9, 32\]"),
    ],
)
def test_what_does_not_fit_is_said(bert, change, message):
    weights = dict(bert.state_dict())
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        convert(weights, SIZES, IDS, "the file")


def test_a_vocabulary_of_another_model_is_refused(bert):
    with pytest.raises(CheckpointError, match="it has 60 tokens"):
        convert(bert.state_dict(), SIZES, SpecialIds(sos=101, pad=0, eos=102, unk=100, mask=103, pseudo=103), "x")
