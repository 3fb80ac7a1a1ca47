"""`PmlmForQuestionAnswering`: where the answer starts and ends in the passage (docs/method.md, 6)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import ModelOutput

from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.inputs import refuse_unknown
from pmlm_core.model.task_head import PmlmWithTaskHead, one_a_row, precisely


@dataclass
class PmlmQuestionAnsweringOutput(ModelOutput):
    """Without positions, the logits alone.

    Attributes:
        loss: mean over the rows (windows of passages).
        loss_sum: mean of a row's two cross-entropies, start and end, summed over the rows.
        correct: rows whose start and end are both the likeliest.
        start_logits, end_logits: [B, N], fp32 or better; the lowest finite number at padding.
    """

    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    correct: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None


class PmlmForQuestionAnswering(PmlmWithTaskHead):
    """The encoder over `[SOS] question [EOS] passage [EOS]` with a start and an end logit for every token.

    Position 0, `[SOS]`, says that the window holds no answer.

    >>> config = PmlmConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    >>> model = PmlmForQuestionAnswering(config)
    >>> model(torch.tensor([[0, 7, 2, 9, 8, 2]])).start_logits.shape
    torch.Size([1, 6])
    """

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **others: Any,
    ) -> PmlmQuestionAnsweringOutput:
        """Logits; with start and end, their loss too.

        Args:
            input_ids: padded on the right, [B, N].
            attention_mask, token_type_ids, position_ids: [B, N].
            start_positions, end_positions: first and last token of each row's answer, [B]; 0 for none in this window.
            others: what transformers gives to every model; without effect.

        Raises:
            ValueError: starts and ends are not one a row, or inputs that `PmlmModel` refuses.
            TypeError: an argument that there is not.
        """
        refuse_unknown(others, self.forward)
        states_BND = self.pmlm(input_ids, attention_mask, token_type_ids, position_ids).last_hidden_state
        logits_BN2 = precisely(self.qa_outputs, states_BND)
        if attention_mask is not None:
            # Neither loss nor prediction of a row may depend on the others' lengths.
            hidden_BN1 = (attention_mask == 0)[:, :, None]
            logits_BN2 = logits_BN2.masked_fill(hidden_BN1, torch.finfo(logits_BN2.dtype).min)
        start_BN, end_BN = logits_BN2.unbind(-1)
        if start_positions is None or end_positions is None:
            return PmlmQuestionAnsweringOutput(start_logits=start_BN, end_logits=end_BN)
        rows = len(start_BN)
        starts_B = one_a_row(start_positions, rows, "start_positions")
        ends_B = one_a_row(end_positions, rows, "end_positions")
        start_loss = F.cross_entropy(start_BN, starts_B, reduction="sum")
        loss_sum = (start_loss + F.cross_entropy(end_BN, ends_B, reduction="sum")) / 2
        both_B = (start_BN.argmax(-1) == starts_B) & (end_BN.argmax(-1) == ends_B)
        return PmlmQuestionAnsweringOutput(
            loss=loss_sum / rows, loss_sum=loss_sum, correct=both_B.sum(), start_logits=start_BN, end_logits=end_BN
        )
