"""Every model where a GPU would take other branches and other types than a CPU: it runs, and the numbers are close."""

import pytest
import torch
from autocast_of_a_gpu import as_on_a_gpu
from generation_makers import SOURCES, TARGETS, pad, small_model

from pmlm_core.model import PmlmConfig, PmlmForMaskedLM, PmlmForQuestionAnswering, PmlmForSequenceClassification

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
IDS = pad(SOURCES)
MASK = (IDS != 1).long()
TASKS = [
    (PmlmForMaskedLM, {"labels": IDS.masked_fill(MASK == 0, -100)}),
    (PmlmForSequenceClassification, {"labels": torch.tensor([0, 1, 1])}),
    (PmlmForSequenceClassification, {"labels": torch.tensor([0.5, 2.0, 1.0])}),
    (PmlmForQuestionAnswering, {"start_positions": torch.tensor([1, 0, 2]), "end_positions": torch.tensor([3, 1, 2])}),
]


def _check(model, batch):
    """Loss and gradients as on a GPU in bf16 against those of a CPU in fp32."""
    results = []
    for gpu in (False, True):
        model.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            if gpu:
                with as_on_a_gpu(patch):
                    loss = model(**batch).loss
            else:
                loss = model(**batch).loss
            loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    expected, got = results
    assert len(expected) == len(got) > 10
    assert got[0].dtype == torch.float32
    torch.testing.assert_close(got[0], expected[0], rtol=0.02, atol=0.02)
    together = [torch.cat([x.flatten() for x in made]) for made in (got[1:], expected[1:])]
    assert torch.cosine_similarity(*together, dim=0) > 0.99


@pytest.mark.parametrize(("cls", "labels"), TASKS)
def test_a_task_is_nearly_that_of_fp32(cls, labels):
    torch.manual_seed(0)
    number = {"num_labels": 1} if labels.get("labels", IDS).is_floating_point() else {}
    model = cls(PmlmConfig(**SMALL, **number, initializer_range=0.1)).eval()
    _check(model, {"input_ids": IDS, "attention_mask": MASK, **labels})


@pytest.mark.parametrize("objective", ["AE+PAR", "AR"])
def test_pre_training_is_nearly_that_of_fp32(objective, make_model, make_batch):
    _check(make_model(objective, initializer_range=0.1).float(), make_batch(objective))


def test_generation_is_nearly_that_of_fp32():
    model = small_model(initializer_range=0.1).float()
    _check(model, {"input_ids": IDS, "labels": pad(TARGETS, -100)})


@pytest.mark.parametrize("beams", [1, 2])
def test_decoding_is_nearly_that_of_fp32(beams, monkeypatch):
    model = small_model(initializer_range=0.1).float()
    how = {"max_new_tokens": 4, "min_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    expected = model.generate(IDS, num_beams=beams, **how).logits[0]
    with as_on_a_gpu(monkeypatch):
        got = model.generate(IDS, num_beams=beams, **how).logits[0]
    assert torch.cosine_similarity(got.flatten().float(), expected.flatten(), dim=0) > 0.99
