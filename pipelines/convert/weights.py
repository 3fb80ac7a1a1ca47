"""The weights of a published checkpoint: one file, or the files that an index names."""

import io
import json
import pickle
from typing import Any

from pmlm_core import storage
from pmlm_core.errors import CheckpointError, NotThereError
from pmlm_core.inside import leads_outside

_INDEX = ".index.json"
_KNOWN = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")


def weights_file(given: str) -> str:
    """The file that is meant: itself, or the likeliest in a folder.

    Raises:
        NotThereError: there is none.
    """
    given = storage.normalise(given)
    if storage.size(given) is not None:
        return given
    present = set(storage.names_in(given))
    name = next((name for name in _KNOWN if name in present), None)
    if name is None:
        raise NotThereError(f"weights {given}: no such file, and no folder with {' or '.join(_KNOWN)} in it")
    return storage.join(given, name)


def read_weights(path: str) -> dict[str, Any]:
    """All weights by name.

    Raises:
        CheckpointError: a file is not there, or holds something else.
    """
    if not storage.split_query(path)[0].endswith(_INDEX):
        return _read(path)
    path_alone, query = storage.split_query(path)
    folder = path_alone.rpartition("/")[0]
    weights: dict[str, Any] = {}
    for name in _named_in(path):
        part = storage.with_query(f"{folder}/{name}", query)
        if storage.size(part) is None:
            raise NotThereError(f"{path} names {name}, which does not lie beside it; fetch all files of the weights")
        weights |= _read(part)
    return weights


def _named_in(index: str) -> list[str]:
    try:
        names = sorted(set(json.loads(storage.read_bytes(index))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read as an index of weights: {error!r}") from None
    if (name := leads_outside(names)) is not None:
        raise CheckpointError(f"{index} names a file {name!r}, which is none of this folder: do not use this model")
    return names


def _read(path: str) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = storage.read_bytes(path)
    try:
        if storage.split_query(path)[0].endswith(".safetensors"):
            found: Any = load(data)
        else:
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than weights, or none; it is not read further, for such a file may run code"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise CheckpointError(f"{path} is no table of weights; give a checkpoint of UniLMv2 or BERT for PyTorch")
    return found
