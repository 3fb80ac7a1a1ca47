"""Other people's models: which of them become ours, and what is said where one of them stands in place of ours."""

import json
import shlex

from pmlm_core.errors import NotThereError

CONVERTIBLE = ("bert", "unilm", "unilmv2")
"""Model types that `pmlm convert` takes; UniLMv2's configurations were published without one."""


def check_ours(config: bytes, folder: str, option: str = "model") -> None:
    """Refuse a folder of another model. A configuration that is none is for whoever loads it to tell of.

    Args:
        config: its `config.json`.
        option: that named the folder.

    Raises:
        NotThereError: it is another model's.
    """
    try:
        named = json.loads(config).get("model_type")
    except (ValueError, AttributeError):
        return
    if named == "pmlm":
        return
    kind = f"a '{named}'" if named else "a model of no named type"
    way_out = (
        f"`pmlm convert --weights {shlex.quote(folder)} --output_dir NEW` makes a pmlm model folder of it"
        if not named or named in CONVERTIBLE
        else "give a folder that pmlm pretrain, finetune or convert made (pmlm convert takes BERT and UniLMv2)"
    )
    raise NotThereError(f"{option} {folder} is {kind}, not a pmlm checkpoint; {way_out}")
