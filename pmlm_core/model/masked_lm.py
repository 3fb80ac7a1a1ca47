"""`PmlmForMaskedLM`: a pre-training checkpoint as a plain masked language model, for `AutoModelForMaskedLM`."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import MaskedLMOutput

from pmlm_core.model.base import PmlmPreTrainedModel
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.head import LanguageModelHead
from pmlm_core.model.inputs import refuse_unknown
from pmlm_core.model.transformer import PmlmModel


class PmlmForMaskedLM(PmlmPreTrainedModel):
    """Bidirectional encoder and output layer; it has the weights of `PmlmForPreTraining`, name by name."""

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
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> MaskedLMOutput:
        """Logits of every position, [B, N, V]; with labels [B, N] (-100 to leave out), the mean cross-entropy too.

        Raises:
            ValueError: inputs that `PmlmModel` refuses.
            TypeError: an argument that there is not.
        """
        refuse_unknown(others, self.forward)
        states_BND = self.pmlm(input_ids, attention_mask, token_type_ids, position_ids).last_hidden_state
        logits_BNV = self.head(states_BND, self.pmlm.embeddings.word.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BNV.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        return MaskedLMOutput(loss=loss, logits=logits_BNV)
