"""The model.

The classes are imported when asked for (`from pmlm_core.model import PmlmForPreTraining`), so that `presets` and `cost`
stay free of torch. Asking for any of them, or `import pmlm_core.model.auto`, also makes transformers' Auto classes know
pmlm.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmlm_core.model.auto import (
        PmlmConfig,
        PmlmForConditionalGeneration,
        PmlmForMaskedLM,
        PmlmForPreTraining,
        PmlmForQuestionAnswering,
        PmlmForSequenceClassification,
        PmlmModel,
    )

__all__ = [
    "PmlmConfig",
    "PmlmForConditionalGeneration",
    "PmlmForMaskedLM",
    "PmlmForPreTraining",
    "PmlmForQuestionAnswering",
    "PmlmForSequenceClassification",
    "PmlmModel",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pmlm_core.model import auto

    return getattr(auto, name)
