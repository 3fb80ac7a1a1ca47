"""The formulas of cost.py against the real modules and torch's own count of operations."""

import pytest
import torch
from model_makers import unpadded_batch
from torch.utils.flop_counter import FlopCounterMode

from pmlm_core.errors import ConfigError
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.cost import (
    activation_bytes,
    flops_per_step,
    forward_flops,
    parameters,
    sharded_state_bytes,
    state_bytes,
    worker_memory,
)
from pmlm_core.model.layer import Layer
from pmlm_core.model.presets import PRESETS, preset


@pytest.mark.parametrize("name", list(PRESETS))
def test_parameters_of_every_preset(name):
    size = preset(name)
    with torch.device("meta"):
        model = PmlmForPreTraining(PmlmConfig(vocab_size=30522, **vars(size)))
    assert sum(p.numel() for p in model.parameters()) == parameters(size, 30522)


def test_base_and_large_have_the_published_sizes():
    assert parameters(preset("base"), 30522) == pytest.approx(110e6, rel=0.01)
    assert parameters(preset("large"), 30522) == pytest.approx(340e6, rel=0.02)


def test_parameters_without_relative_bias_and_with_other_tables():
    size = preset("tiny")
    config = PmlmConfig(vocab_size=100, max_position_embeddings=64, type_vocab_size=3, rel_pos_bins=0, **vars(size))
    expected = parameters(size, 100, max_position_embeddings=64, type_vocab_size=3, rel_pos_bins=0)
    assert sum(p.numel() for p in PmlmForPreTraining(config).parameters()) == expected


@pytest.mark.parametrize("objective", ["AE", "PAR", "AE+PAR"])
@pytest.mark.parametrize("layers", [1, 3])
def test_operations_are_those_torch_counts(objective, layers):
    rows, n, k, vocab = 2, 32, 8, 70
    config = PmlmConfig(
        vocab_size=vocab,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=40,
        objective=objective,
    )
    model = PmlmForPreTraining(config)
    batch = unpadded_batch(rows, n, k, vocab)
    counter = FlopCounterMode(display=False)
    with counter:
        model(**batch).loss.backward()
    expected = flops_per_step(config, vocab_size=vocab, rows=rows, context=n, slots=k, objective=objective)
    assert counter.get_total_flops() == expected
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**batch)
    assert counter.get_total_flops() == rows * forward_flops(
        config, vocab_size=vocab, context=n, slots=k, objective=objective
    )


def test_activation_estimate_is_what_autograd_keeps():
    rows, n, k, vocab = 4, 128, 24, 500
    config = PmlmConfig(
        vocab_size=vocab, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=256
    )
    model = PmlmForPreTraining(config).train()
    batch = unpadded_batch(rows, n, k, vocab)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        output = model(**batch)
    estimate = activation_bytes(config, rows=rows, context=n, slots=k, vocab_size=vocab)
    assert output.loss.isfinite()
    assert estimate == pytest.approx(sum(kept.values()), rel=0.3)


def test_memory_of_the_base_model_is_what_a_gpu_took():
    """14.55 GB at its peak on an H200 (benchmarks/results/2026-11-27-pretrain-step-gpu.md)."""
    base, vocab = preset("base"), 30528
    how = {"context": 512, "slots": 88, "vocab_size": vocab, "bf16": True}
    found = worker_memory(base, parameters(base, vocab), rows=64, on_gpu=True, **how)
    assert found.total == pytest.approx(14.55e9, rel=0.05)
    assert found.state == 18 * parameters(base, vocab)
    assert found.activations < worker_memory(base, parameters(base, vocab), rows=64, **how).activations


def test_state_is_four_numbers_a_parameter_and_unknown_presets_are_refused():
    assert state_bytes(10) == 160
    with pytest.raises(ConfigError, match="presets are tiny, mini"):
        preset("huge")


def test_what_workers_share_shrinks_with_their_number_down_to_what_is_gathered():
    size = preset("large")
    count = parameters(size, 30522)
    of = [sharded_state_bytes(size, count, workers, passes=1) for workers in (1, 2, 8, 64, 10**9)]
    assert of[0] == state_bytes(count)
    assert of == sorted(of, reverse=True)
    outside = count - 24 * sum(p.numel() for p in Layer(PmlmConfig(vocab_size=30522, **vars(size))).parameters())
    assert outside < of[-1] / 8 < outside + count / 10
    # Gradients that add up are whole.
    assert sharded_state_bytes(size, count, 10**9, passes=2) == pytest.approx(of[-1] / 2 + 4 * count)
