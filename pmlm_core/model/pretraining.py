"""`PmlmForPreTraining`: AE at the conventional masks and PAR or AR at the pseudo masks, in one forward pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import ModelOutput

from pmlm_core.model.base import PmlmPreTrainedModel
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.device import eager_on_cpu
from pmlm_core.model.head import LanguageModelHead
from pmlm_core.model.inputs import refuse_unknown
from pmlm_core.model.objectives import Objective
from pmlm_core.model.transformer import PmlmModel


@dataclass
class PmlmForPreTrainingOutput(ModelOutput):
    """Losses of a batch; all but `logits` are scalars, and None where the objective or the inputs leave them out.

    Attributes:
        loss: sum of the objective's losses, each the mean over this batch's predicted tokens.
        ae_loss_sum, par_loss_sum: cross-entropies summed over the predicted tokens, for a mean over a global batch.
        ae_correct, par_correct: how many tokens were predicted rightly.
        num_predictions: predicted tokens (the same ones for AE and PAR).
        logits: only without labels: [B, N, V], of every context position.
    """

    loss: Tensor | None = None
    ae_loss_sum: Tensor | None = None
    par_loss_sum: Tensor | None = None
    ae_correct: Tensor | None = None
    par_correct: Tensor | None = None
    num_predictions: Tensor | None = None
    logits: Tensor | None = None


class PmlmForPreTraining(PmlmPreTrainedModel):
    """The encoder with the output layer, trained by `config.objective`.

    >>> config = PmlmConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    >>> model = PmlmForPreTraining(config)
    >>> batch = {
    ...     "input_ids": torch.tensor([[0, 7, 4, 9, 2, 4, 2]]),
    ...     "pseudo_position_ids": torch.tensor([[5, 2, 0]]),
    ...     "pseudo_steps": torch.tensor([[1, 2, 0]]),
    ...     "labels": torch.tensor([[11, 8, -100]]),
    ... }
    >>> output = model(**batch)
    >>> output.num_predictions.item(), output.loss.shape
    (2, torch.Size([]))
    """

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__(config)
        self.pmlm = PmlmModel(config)
        self.head = LanguageModelHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pseudo_position_ids: Tensor | None = None,
        pseudo_steps: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> PmlmForPreTrainingOutput:
        """Losses with labels, else the logits of every context position, as of a plain masked language model.

        Args: as `pmlm_core.model.collate.collate` makes them.
            input_ids: corrupted context, [B, N]; attention_mask, token_type_ids: [B, N].
            pseudo_position_ids: position of every predicted slot, [B, K].
            pseudo_steps: its factorization step 1, 2, …; 0 for padding, [B, K].
            labels: the true token of every slot; -100 for padding, [B, K].
            others: what transformers gives to every model; without effect.

        Raises:
            ValueError: labels without a slot, or without their positions and steps; inputs that `PmlmModel` refuses.
            TypeError: an argument that there is not.

        Source: docs/method.md, 1 and 3.
        """
        refuse_unknown(others, self.forward)
        embedding_VD = self.pmlm.embeddings.word.weight
        if labels is None:
            context_BND = self.pmlm(input_ids, attention_mask, token_type_ids).last_hidden_state
            return PmlmForPreTrainingOutput(logits=self.head(context_BND, embedding_VD))
        if pseudo_position_ids is None or pseudo_steps is None:
            raise ValueError(
                "labels come with pseudo_position_ids and pseudo_steps, which say where and in which step."
            )
        if labels.shape[1] == 0:
            raise ValueError("labels have no slot; make it at least one a row, -100 where nothing is predicted.")

        if eager_on_cpu(labels):
            # Leave out the columns that are padding in every row.
            columns = (labels != IGNORED).any(0)
            columns[0] = True
            pseudo_position_ids, pseudo_steps, labels = (
                x[:, columns] for x in (pseudo_position_ids, pseudo_steps, labels)
            )
        else:
            # Their order means nothing; near each other, they have few distances in a tile of scores.
            order = pseudo_position_ids.argsort(1)
            pseudo_position_ids, pseudo_steps, labels = (
                x.gather(1, order) for x in (pseudo_position_ids, pseudo_steps, labels)
            )
        objective = Objective(self.config.objective)
        ae_BKD, par_BKD = self.pmlm.predicted_states(
            input_ids,
            attention_mask,
            token_type_ids,
            pseudo_position_ids,
            pseudo_steps,
            torch.where(labels == IGNORED, self.config.pad_token_id, labels),
            ae=objective.has_ae,
            par=objective.has_par,
        )
        predictions = (labels != IGNORED).sum()
        states = [each for each in (ae_BKD, par_BKD) if each is not None]
        losses = self.head.losses(states, embedding_VD, labels)
        ae_loss_sum, ae_correct = (None, None) if ae_BKD is None else losses[0]
        par_loss_sum, par_correct = (None, None) if par_BKD is None else losses[-1]
        return PmlmForPreTrainingOutput(
            loss=torch.stack([loss for loss, _ in losses]).sum() / predictions.clamp(min=1),
            ae_loss_sum=ae_loss_sum,
            par_loss_sum=par_loss_sum,
            ae_correct=ae_correct,
            par_correct=par_correct,
            num_predictions=predictions,
        )
