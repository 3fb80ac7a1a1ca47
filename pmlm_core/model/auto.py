"""Makes pmlm known to transformers: `import pmlm_core.model.auto`, then `AutoModel.from_pretrained(folder)`.

The tokenizer is registered along with it, so that `AutoTokenizer.from_pretrained(folder)` works too.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

import pmlm_core.corpus.hf_tokenizer  # noqa: F401 - imported for its registration
from pmlm_core.model.classification import PmlmForSequenceClassification
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.generation.conditional import PmlmForConditionalGeneration
from pmlm_core.model.masked_lm import PmlmForMaskedLM
from pmlm_core.model.pretraining import PmlmForPreTraining
from pmlm_core.model.question_answering import PmlmForQuestionAnswering
from pmlm_core.model.transformer import PmlmModel

__all__ = [
    "PmlmConfig",
    "PmlmForConditionalGeneration",
    "PmlmForMaskedLM",
    "PmlmForPreTraining",
    "PmlmForQuestionAnswering",
    "PmlmForSequenceClassification",
    "PmlmModel",
]

AutoConfig.register(PmlmConfig.model_type, PmlmConfig, exist_ok=True)
AutoModel.register(PmlmConfig, PmlmModel, exist_ok=True)
AutoModelForPreTraining.register(PmlmConfig, PmlmForPreTraining, exist_ok=True)
AutoModelForMaskedLM.register(PmlmConfig, PmlmForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(PmlmConfig, PmlmForSequenceClassification, exist_ok=True)
AutoModelForQuestionAnswering.register(PmlmConfig, PmlmForQuestionAnswering, exist_ok=True)
AutoModelForSeq2SeqLM.register(PmlmConfig, PmlmForConditionalGeneration, exist_ok=True)
