"""Classification and regression: examples to features, features to a batch (docs/method.md, 6)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError
from pmlm_core.tasks.base import Task, TextExample

Feature = dict[str, Any]


def encode_text(
    examples: Sequence[TextExample], tokenizer: TextTokenizer, task: Task, max_length: int
) -> list[Feature]:
    """Encode `[SOS] A [EOS]` or `[SOS] A [EOS] B [EOS]`, segments 0 and 1.

    A text that is too long loses its end. Of a pair, the longer text is shortened token by token, the second one if
    they are equally long, as BERT does.

    Args:
        max_length: of the whole, special tokens included.

    Returns:
        One feature an example: "input_ids", "token_type_ids" (lists of int) and "label": the place of the label among
        `task.labels`, a float for a regression, None where there is none.

    Raises:
        ConfigError: max_length leaves no room for a token of each text.
        DataError: a label is none of the task's, or not a number.
    """
    pairs = any(example.text_b is not None for example in examples)
    least = 5 if pairs else 3
    if max_length < least:
        raise ConfigError(
            f"max_length {max_length} leaves no room for text between special tokens; give {least} at least"
        )
    special = tokenizer.special_ids
    firsts = tokenizer.encode([example.text_a for example in examples])
    seconds = iter(tokenizer.encode([example.text_b for example in examples if example.text_b is not None]))
    labels = {label: i for i, label in enumerate(task.labels)}
    features = []
    for example, first in zip(examples, firsts, strict=True):
        if example.text_b is None:
            ids = [special.sos, *first[: max_length - 2].tolist(), special.eos]
            types = [0] * len(ids)
        else:
            second = next(seconds)
            keep_a, keep_b = kept_lengths(len(first), len(second), max_length - 3)
            ids = [special.sos, *first[:keep_a].tolist(), special.eos, *second[:keep_b].tolist(), special.eos]
            types = [0] * (keep_a + 2) + [1] * (keep_b + 1)
        features.append({"input_ids": ids, "token_type_ids": types, "label": _label(example, task, labels)})
    return features


def kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text stay when the longer one is shortened until both fit into `room`.

    >>> kept_lengths(10, 10, 7), kept_lengths(2, 10, 7), kept_lengths(10, 2, 7), kept_lengths(2, 3, 7)
    ((4, 3), (2, 5), (5, 2), (2, 3))
    """
    if first + second <= room:
        return first, second
    if second <= room // 2:
        return room - second, second
    if first <= room - room // 2:
        return first, room - first
    return room - room // 2, room // 2


def _label(example: TextExample, task: Task, labels: Mapping[str, int]) -> int | float | None:
    if example.label is None:
        return None
    where = f"task {task.name}, row {example.row} (id {example.id})"
    if task.kind == "regression":
        try:
            return float(example.label)
        except ValueError:
            raise DataError(f"{where}: label {example.label!r} is not a number; correct it") from None
    if example.label not in labels:
        raise DataError(f"{where}: label {example.label!r} is none of {', '.join(task.labels)}; correct it")
    return labels[str(example.label)]


def collate_text(features: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """Pad features on the right to the longest of them.

    Returns:
        int64 "input_ids", "attention_mask", "token_type_ids" [B, N]; and if every feature has a label, "labels" [B]:
        int64, or float32 of a regression.
    """
    batch = pad(features, pad_id)
    labels = [feature.get("label") for feature in features]
    if all(label is not None for label in labels):
        array = np.asarray(labels)
        batch["labels"] = torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))
    return batch


def pad(features: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """The inputs of features, padded on the right to the longest; see `collate_text`."""
    lengths = np.array([len(feature["input_ids"]) for feature in features])
    shape = (len(features), int(lengths.max()))
    ids, types = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    for row, (feature, length) in enumerate(zip(features, lengths, strict=True)):
        ids[row, :length] = feature["input_ids"]
        types[row, :length] = feature["token_type_ids"]
    mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "token_type_ids": torch.from_numpy(types),
    }
