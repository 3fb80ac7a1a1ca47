"""The formulas of traffic.py against real shards, a simulated ring, and the real model's parameters."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operations_counted import operations_counted

from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.packing import Windows
from pmlm_core.corpus.shards import ShardWriter
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.cost import parameters
from pmlm_core.model.presets import preset
from pmlm_core.model.traffic import (
    all_reduce_bytes,
    block_bytes,
    gradient_bytes,
    late_gradient_bytes,
    mean_predictions,
    operations_sent,
    token_bytes,
)

ROWS = 2048


def masked(length: int, views: int, vocab: int) -> tuple[Windows, list]:
    rng = np.random.default_rng(0)
    ids = rng.integers(6, vocab, (ROWS, length)).astype(np.int32)
    ids[:, [0, length // 2, -1]] = [SpecialIds().sos, SpecialIds().eos, SpecialIds().eos]
    offsets = np.arange(ROWS + 1, dtype=np.int64) * length
    windows = Windows(ids.ravel(), offsets, np.full(ROWS, length // 2 + 1, np.int32))
    ordinary = np.arange(6, vocab)
    return windows, [
        mask_windows(windows, view=v, stream_key=3, first_row=0, special_ids=SpecialIds(), ordinary_ids=ordinary)
        for v in range(views)
    ]


@pytest.mark.parametrize(("length", "views", "vocab"), [(128, 4, 4000), (512, 1, 30522), (256, 2, 70_000)])
def test_bytes_of_a_row_are_those_of_a_shard(tmp_path, length, views, vocab):
    windows, made = masked(length, views, vocab)
    path = tmp_path / "a.arrow"
    with ShardWriter(str(path), views=views, vocab_size=vocab, max_length=length, tokenizer_fingerprint="t") as writer:
        writer.write(windows, made)
    slots = mean_predictions(length)
    assert slots == pytest.approx(writer.masked_tokens / ROWS, rel=0.02)
    assert block_bytes(length, slots, vocab, views) == pytest.approx(path.stat().st_size / ROWS, rel=0.01)
    assert token_bytes(vocab) == (2 if vocab < 65_536 else 4)


def ring(workers: int, chunk: int) -> int:
    """Bytes that worker 0 sends, step by step: every chunk goes round twice, less one worker each time."""
    sent = 0
    for _phase in ("reduce", "gather"):
        for _step in range(workers - 1):
            sent += chunk
    return sent


@given(st.integers(1, 64), st.integers(1, 1000))
def test_a_ring_sends_what_it_sends_chunk_by_chunk(workers, chunk):
    assert all_reduce_bytes(workers * chunk, workers) == pytest.approx(ring(workers, chunk))


@given(st.integers(1, 5000))
def test_more_workers_send_more_each_and_never_twice_the_gradients(workers):
    assert all_reduce_bytes(1e6, workers) < all_reduce_bytes(1e6, workers + 1) < 2e6


def test_gradients_are_those_of_the_real_model_and_the_late_ones_its_embeddings():
    size = preset("tiny")
    model = PmlmForPreTraining(PmlmConfig(vocab_size=900, **vars(size)))
    assert gradient_bytes(parameters(size, 900)) == sum(p.numel() * p.element_size() for p in model.parameters())
    tables = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    assert late_gradient_bytes(size, 900) == pytest.approx(4 * sum(tables), abs=4 * 32 * size.num_attention_heads)


@pytest.mark.parametrize("objective", ["AE", "PAR", "AE+PAR"])
@pytest.mark.parametrize("layers", [2, 12])
def test_operations_sent_are_about_those_counted(objective, layers):
    size = PmlmConfig(vocab_size=10, num_hidden_layers=layers, hidden_size=16, num_attention_heads=2)
    assert operations_sent(size, objective) == pytest.approx(operations_counted(layers, objective), rel=0.2)
