"""`PmlmForSequenceClassification`: one label, or one number, for a text or a pair of texts (METHOD section 6)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import ModelOutput

from pmlm_core.errors import ConfigError
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.dropout import dropout
from pmlm_core.model.task_head import PmlmWithTaskHead, precisely

ProblemType = Literal["regression", "single_label_classification"]
"""Values of `problem_type`, in transformers' words."""


@dataclass
class PmlmClassificationOutput(ModelOutput):
    """Without labels, the logits alone.

    Attributes:
        loss: mean over the rows.
        loss_sum: cross-entropies, or squared errors of a regression, summed over the rows.
        num_examples: rows, an integer scalar.
        correct: rows whose label is the likeliest; None for a regression.
        logits: [B, labels]; of a regression [B, 1], the number itself. fp32 or better.
    """

    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    num_examples: Tensor | None = None
    correct: Tensor | None = None
    logits: Tensor | None = None


class PmlmForSequenceClassification(PmlmWithTaskHead):
    """The encoder, read at `[SOS]`: dense and tanh, dropout, a linear layer; BERT's head.

    The configuration's `num_labels` (or `id2label`) and `problem_type` say what is predicted; one label is a
    regression.

    Raises:
        ConfigError: `problem_type` is another, or does not go with `num_labels`.

    >>> config = PmlmConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
    >>> model = PmlmForSequenceClassification(config)
    >>> output = model(torch.tensor([[0, 7, 9, 2]]), labels=torch.tensor([1]))
    >>> output.logits.shape, output.num_examples.item()
    (torch.Size([1, 3]), 1)
    """

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__(config)
        config.problem_type = _problem_type(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> PmlmClassificationOutput:
        """Args:
        input_ids: `[SOS] A [EOS]` or `[SOS] A [EOS] B [EOS]`, padded on the right, [B, N].
        attention_mask, token_type_ids: [B, N].
        labels: index of each row's label, or its number, [B].
        """
        first_B1 = torch.zeros_like(input_ids[:, :1])
        # The last layer computes one query a row; steps and true tokens are for an appended part, which is not here.
        first_B1D, _par = self.pmlm.predicted_states(
            input_ids, attention_mask, token_type_ids, first_B1, first_B1, first_B1, ae=True, par=False
        )
        assert first_B1D is not None
        pooled_BD = torch.tanh(precisely(self.pooler, first_B1D[:, 0]))
        logits_BL = precisely(self.classifier, dropout(pooled_BD, self.config.hidden_dropout_prob, self.training))
        output = PmlmClassificationOutput(logits=logits_BL)
        if labels is None:
            return output
        if self.config.problem_type == "regression":
            output.loss_sum = F.mse_loss(logits_BL[:, 0], labels.to(logits_BL.dtype), reduction="sum")
        else:
            output.loss_sum = F.cross_entropy(logits_BL, labels, reduction="sum")
            output.correct = (logits_BL.argmax(-1) == labels).sum()
        output.num_examples = torch.tensor(len(labels), device=labels.device)
        output.loss = output.loss_sum / len(labels)
        return output


def _problem_type(config: PmlmConfig) -> ProblemType:
    """The configured one, or what the number of labels says."""
    asked, labels = config.problem_type, config.num_labels
    if asked is None:
        return "regression" if labels == 1 else "single_label_classification"
    if asked == "multi_label_classification":
        raise ConfigError(f"problem_type is {asked!r}; it must be single_label_classification or regression.")
    if (asked == "regression") != (labels == 1):
        raise ConfigError(
            f"problem_type {asked} does not go with {labels} labels; "
            "a regression has one, a classification two or more."
        )
    return asked
