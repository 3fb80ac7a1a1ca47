"""The output layer: dense, `hidden_act`, LayerNorm, then the tied token embedding plus a bias; and its loss."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmlm_core.model.activation import ACTIVATIONS
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.cross_entropy import IGNORED, cross_entropy_sum, cross_entropy_sums
from pmlm_core.model.device import eager_on_cpu

_GPU_SLICE = 4096
"""Rows of logits at a time: 250 MB of 30,000 words in bf16, enough to keep a large GPU's products at their best."""


class LanguageModelHead(nn.Module):
    """Logits over the vocabulary. The token embedding comes with each call: one weight, tied by construction."""

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.activation = ACTIVATIONS[config.hidden_act]

    def transform(self, states_D: Tensor) -> Tensor:
        """What the embedding is multiplied with, [..., D]."""
        return self.norm(self.activation(self.dense(states_D)))

    def forward(self, states_D: Tensor, embedding_VD: Tensor) -> Tensor:
        """Logits, [..., V]."""
        return F.linear(self.transform(states_D), embedding_VD, self.bias)

    def loss(
        self, states_BKD: Tensor, embedding_VD: Tensor, labels_BK: Tensor, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over the slots whose label is not -100, and how many of them are predicted rightly."""
        return self.losses([states_BKD], embedding_VD, labels_BK, label_smoothing)[0]

    def losses(
        self, states: Sequence[Tensor], embedding_VD: Tensor, labels_BK: Tensor, label_smoothing: float = 0.0
    ) -> list[tuple[Tensor, Tensor]]:
        """`loss` of several states [B, K, D] of the same slots; on a CPU through one product with the embedding."""
        labels_R, states_RD = labels_BK.flatten(), [each.flatten(0, 1) for each in states]
        if not eager_on_cpu(labels_R):
            # Slots that are padding cost as much as the others, but looking where they are would cost more.
            made = (self.transform(each) for each in states_RD)
            on_labels = embedding_VD, self.bias, labels_R
            return [cross_entropy_sum(each, *on_labels, _GPU_SLICE, label_smoothing) for each in made]
        used = (labels_R != IGNORED).nonzero().squeeze(1)
        loss_P, correct_P = cross_entropy_sums(
            self.transform(torch.cat([each[used] for each in states_RD])),
            embedding_VD,
            self.bias,
            labels_R[used].repeat(len(states)),
            len(states),
            label_smoothing=label_smoothing,
        )
        return list(zip(loss_P.unbind(), correct_P.unbind(), strict=True))
