"""The files of a model's weights, where they are several."""

import json
from pathlib import Path

from pmlm_core.errors import CheckpointError
from pmlm_core.inside import leads_outside

INDEX = "model.safetensors.index.json"


def files_in(index: Path) -> list[str]:
    """Names of the files that an index of sharded weights tells, in its folder.

    Raises:
        CheckpointError: it cannot be read, or names a file elsewhere.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read: {error!r}") from None
    if (name := leads_outside(names)) is not None:
        raise CheckpointError(f"{index} names a file {name!r}, which is none of this folder: do not use this model")
    return names
