"""What a forward pass is given, looked at before it is used."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pmlm_core.errors import near

_OF_TRANSFORMERS = ("return_dict", "use_cache", "num_items_in_batch")
"""What transformers' Trainer, pipelines and `generate` may give to any model, and nothing follows from here."""


def as_ids(x_BN: Tensor, ids_BN: Tensor, name: str) -> Tensor:
    """Mask, segments or positions in the shape of the ids, [B, N]: a row for each of theirs, or one for all.

    >>> import torch
    >>> as_ids(torch.tensor([[1, 0]]), torch.tensor([[7, 8], [9, 6]]), "attention_mask").tolist()
    [[1, 0], [1, 0]]

    Raises:
        ValueError: they have another shape.
    """
    rows, n = ids_BN.shape
    if x_BN.shape == ids_BN.shape:
        return x_BN
    if x_BN.shape != (1, n):
        raise ValueError(
            f"{name} has the shape {tuple(x_BN.shape)} and input_ids {rows, n}; give it a row for each of theirs, or "
            "one for all."
        )
    return x_BN.expand(rows, n)


def refuse_unknown(given: Mapping[str, Any], forward: Callable[..., Any]) -> None:
    """Refuse arguments that a forward pass has no name for, unless they ask for nothing: None and False do not.

    Raises:
        TypeError: there is one; it may be a known one misspelt.
        ValueError: `return_dict` is False.
    """
    for name, value in given.items():
        if name == "return_dict" and value is False:
            raise ValueError("The outputs here are no tuples; leave return_dict out and call to_tuple() of the output.")
        if value is not None and value is not False and name not in _OF_TRANSFORMERS:
            known = inspect.signature(forward).parameters
            raise TypeError(f"The model takes no '{name}'{near(name, known)}.")
