"""How many operations forward and backward send, counted on a CPU through the paths that a GPU takes."""

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from model_makers import unpadded_batch
from torch.utils._python_dispatch import TorchDispatchMode

import pmlm_core.model as room
from pmlm_core.model import PmlmConfig, PmlmForPreTraining


class _Count(TorchDispatchMode):
    """Counts operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.sent += not func.is_view
        return func(*args, **(kwargs or {}))


class _OneOperation(torch.autograd.Function):
    """Attention as one operation each way, as a fused kernel is; on a CPU torch would make many of it."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(q, k, v, bias)
        return q.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return tuple(None if x is None else torch.zeros_like(x) for x in ctx.saved_tensors)


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")]
    sdpa = importlib.import_module("pmlm_core.model.attention.sdpa")
    patches = [patch.object(m, "eager_on_cpu", lambda x: False) for m in modules if hasattr(m, "eager_on_cpu")]
    patches.append(
        patch.object(
            sdpa,
            "scaled_dot_product_attention",
            lambda q, k, v, attn_mask, dropout_p: _OneOperation.apply(q, k, v, attn_mask),
        )
    )
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def operations_counted(layers: int, objective: str) -> int:
    """Of a small model with so many layers, under bf16 autocast; width and batch do not change the number."""
    rows, n, k, vocab = 2, 32, 8, 70
    config = PmlmConfig(
        vocab_size=vocab,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=40,
        objective=objective,
    )
    model = PmlmForPreTraining(config).train()
    batch = unpadded_batch(rows, n, k, vocab)
    with _as_on_a_gpu(), _Count() as count:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
    return count.sent
