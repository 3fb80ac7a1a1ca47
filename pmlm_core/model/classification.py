"""`PmlmForSequenceClassification`: one label, or one number, for a text or a pair of texts (docs/method.md, 6)."""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import ModelOutput

from pmlm_core.errors import ConfigError
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.dropout import dropout
from pmlm_core.model.inputs import refuse_unknown
from pmlm_core.model.task_head import PmlmWithTaskHead, one_a_row, precisely

ProblemType = Literal["regression", "single_label_classification"]
"""Values of `problem_type`, in transformers' words."""


@dataclass
class PmlmClassificationOutput(ModelOutput):
    """Without labels, the logits alone.

    Attributes:
        loss: mean over the rows that have a label.
        loss_sum: cross-entropies, or squared errors of a regression, summed over the rows.
        correct: rows whose label is the likeliest; None for a regression.
        logits: [B, labels]; of a regression [B, 1], the number itself. fp32 or better.
    """

    loss: Tensor | None = None
    loss_sum: Tensor | None = None
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
    >>> model(torch.tensor([[0, 7, 9, 2]]), labels=torch.tensor([1])).logits.shape
    torch.Size([1, 3])
    """

    def __init__(self, config: PmlmConfig) -> None:
        config = copy.deepcopy(config)
        config.problem_type = _problem_type(config)
        super().__init__(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> PmlmClassificationOutput:
        """Logits; with labels, their loss too.

        Args:
            input_ids: `[SOS] A [EOS]` or `[SOS] A [EOS] B [EOS]`, padded on the right, [B, N].
            attention_mask, token_type_ids, position_ids: [B, N].
            labels: index of each row's label, -100 for none, or its number, [B].
            others: what transformers gives to every model; without effect.

        Raises:
            ValueError: labels are not one a row, or inputs that `PmlmModel` refuses.
            TypeError: an argument that there is not.
        """
        refuse_unknown(others, self.forward)
        if position_ids is None:
            first_B1 = torch.zeros_like(input_ids[:, :1])
            # The last layer computes one query a row; steps and true tokens are for an appended part: there is none.
            states_BND, _par = self.pmlm.predicted_states(
                input_ids, attention_mask, token_type_ids, first_B1, first_B1, first_B1, ae=True, par=False
            )
        else:
            states_BND = self.pmlm(input_ids, attention_mask, token_type_ids, position_ids).last_hidden_state
        assert states_BND is not None
        pooled_BD = torch.tanh(precisely(self.pooler, states_BND[:, 0]))
        logits_BL = precisely(self.classifier, dropout(pooled_BD, self.config.hidden_dropout_prob, self.training))
        if labels is None:
            return PmlmClassificationOutput(logits=logits_BL)
        labels_B = one_a_row(labels, len(logits_BL), "labels")
        if self.config.problem_type == "regression":
            loss_sum = F.mse_loss(logits_BL[:, 0], labels_B.to(logits_BL.dtype), reduction="sum")
            return PmlmClassificationOutput(loss=loss_sum / len(labels_B), loss_sum=loss_sum, logits=logits_BL)
        loss_sum = F.cross_entropy(logits_BL, labels_B, reduction="sum", ignore_index=IGNORED)
        return PmlmClassificationOutput(
            loss=loss_sum / (labels_B != IGNORED).sum().clamp(min=1),
            loss_sum=loss_sum,
            correct=(logits_BL.argmax(-1) == labels_B).sum(),
            logits=logits_BL,
        )


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
