"""Small models and sources for the tests of generation."""

import torch
from torch import Tensor

from pmlm_core.model import PmlmConfig
from pmlm_core.model.generation.conditional import PmlmForConditionalGeneration

SOURCES = [[0, 17, 9, 33, 8, 41, 2], [0, 12, 2], [0, 25, 19, 7, 38, 2]]
TARGETS = [[21, 14, 2], [9, 30, 11, 45, 2], [2]]


def small_model(**overrides: object) -> PmlmForConditionalGeneration:
    options: dict[str, object] = {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        "max_rel_pos": 16,
        "rel_pos_bins": 8,
        # Large weights, so that attention is far from uniform and a wrong mask changes the numbers.
        "initializer_range": 0.4,
    }
    torch.manual_seed(0)
    return PmlmForConditionalGeneration(PmlmConfig(**(options | overrides))).double().eval()


def undecided_model(end_bias: float) -> PmlmForConditionalGeneration:
    """One that may end after any token: the likeliest targets differ in length."""
    model = small_model(initializer_range=0.16)
    with torch.no_grad():
        model.head.bias[2] += end_bias
    return model


def pad(rows: list[list[int]], value: int = 1, left: bool = False) -> Tensor:
    width = max(map(len, rows))
    filler = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([f + r if left else r + f for r, f in zip(rows, filler, strict=True)])
