"""Gradient checkpointing: layers computed twice give the same bits, dropout included, and keep far less meanwhile."""

import copy
import gc

import pytest
import torch
from model_makers import unpadded_batch
from torch import Tensor, nn

from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.cost import activation_bytes
from pmlm_core.training.together import recompute_layers

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}


def trained(model: nn.Module, batch: dict[str, Tensor], bf16: bool) -> list[Tensor]:
    """Loss, gradients, and what the random generator would give next."""
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(**batch).loss
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None), torch.rand(())]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("objective", ["AE", "PAR", "AE+PAR"])
def test_losses_and_gradients_are_the_same_to_the_last_bit(make_model, make_batch, objective, bf16):
    model = make_model(objective, **DROPOUT).float().train()
    again = copy.deepcopy(model)
    recompute_layers(again)
    batch = make_batch(objective)
    expected, found = trained(model, batch, bf16), trained(again, batch, bf16)
    assert len(found) == len(expected) > 10
    assert all(torch.equal(mine, its) for mine, its in zip(found, expected, strict=True))


def test_recomputation_by_backward_passes_within_the_backward_pass_is_refused(make_model):
    model = make_model()
    with pytest.raises(ValueError, match=r'with \{"use_reentrant": False\}'):
        model.gradient_checkpointing_enable({"use_reentrant": True})
    model.gradient_checkpointing_enable()
    model.gradient_checkpointing_disable()


def alive() -> dict[int, int]:
    """Bytes of every storage that a tensor in Python holds; those of torch's tracing have none."""
    tensors = (each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter))
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}


def kept_for_backward(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Bytes that a forward pass leaves in memory: what autograd saves, and the inputs of layers to be done again."""
    gc.collect()
    before, kept = alive(), {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        output = model(**batch)
    found = alive() | kept
    assert output.loss.isfinite()
    return sum(size for storage, size in found.items() if storage not in before)


def test_what_is_kept_is_what_the_formula_says():
    rows, n, k, vocab, layers = 4, 128, 24, 500, 6
    size = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
    config = PmlmConfig(vocab_size=vocab, num_hidden_layers=layers, **size)
    model = PmlmForPreTraining(config).train()
    batch = unpadded_batch(rows, n, k, vocab)
    usual = kept_for_backward(model, batch)
    recompute_layers(model)
    found = kept_for_backward(model, batch)
    how = {"rows": rows, "context": n, "slots": k, "vocab_size": vocab}
    expected = activation_bytes(config, **how, recomputed=True)
    one_layer = activation_bytes(config, **how)
    config.num_hidden_layers -= 1
    one_layer -= activation_bytes(config, **how)  # which is there in backward only
    assert found == pytest.approx(expected - one_layer, rel=0.3)
    assert found < usual / 3
