"""Generation: sources and targets to features, features to a batch, ids back to text (docs/method.md, 6)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError
from pmlm_core.jit import njit
from pmlm_core.randomness import draw, key
from pmlm_core.tasks.base import SourceTarget

Feature = dict[str, list[int]]
_IGNORED = -100


def encode_seq2seq(
    examples: Sequence[SourceTarget], tokenizer: TextTokenizer, max_length: int, max_target_length: int
) -> list[Feature]:
    """Encode `[SOS] SRC [EOS]` and `TGT [EOS]`; a text that is too long loses its end and keeps its `[EOS]`.

    Args:
        max_length, max_target_length: tokens, special ones included.

    Returns:
        One feature an example: "input_ids", and "target_ids", which is empty where the example has no target.

    Raises:
        ConfigError: a length leaves no room for a token of text.
    """
    if max_length < 3 or max_target_length < 2:
        raise ConfigError(
            f"max_length {max_length} and max_target_length {max_target_length} leave no room for text beside special "
            "tokens; give 3 and 2 at least"
        )
    special = tokenizer.special_ids
    sources = tokenizer.encode([example.source for example in examples])
    targets = iter(tokenizer.encode([example.target for example in examples if example.target is not None]))
    features = []
    for example, source in zip(examples, sources, strict=True):
        target: list[int] = []
        if example.target is not None:
            target = [*next(targets)[: max_target_length - 1].tolist(), special.eos]
        features.append(
            {"input_ids": [special.sos, *source[: max_length - 2].tolist(), special.eos], "target_ids": target}
        )
    return features


def collate_seq2seq(
    features: Sequence[Mapping[str, Any]],
    special_ids: SpecialIds,
    *,
    target_mask_prob: float = 0.0,
    streams: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Pad features on the right to the longest of them.

    Args:
        target_mask_prob: target word-drop: each true token that later slots may see becomes [MASK] with this
            probability. What is to be predicted stays as it is.
        streams: a number for each row, such as `pmlm_core.randomness.key(seed, what, epoch, row)` gives; which tokens
            are dropped is a function of it. Needed for word-drop; without it (prediction) nothing is dropped.

    Returns:
        int64 "input_ids", "attention_mask" [B, N]; and if every row has a target, "labels" (-100 is padding) and
        "decoder_input_ids" (the start token, then the true tokens, some masked) [B, T].

    Raises:
        ConfigError: target_mask_prob is no probability, or streams are not one a row.
    """
    if not 0 <= target_mask_prob <= 1:
        raise ConfigError(f"target_mask_prob must be from 0 to 1, not {target_mask_prob}")
    if streams is not None and len(streams) != len(features):
        raise ConfigError(f"{len(streams)} streams cannot seed {len(features)} rows; give one a row")
    ids = _padded([feature["input_ids"] for feature in features], special_ids.pad)
    lengths = np.array([len(feature["input_ids"]) for feature in features])
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    targets = [feature.get("target_ids") for feature in features]
    if not all(targets):
        return batch
    labels = _padded(targets, _IGNORED)
    seen = np.where(labels == _IGNORED, special_ids.pad, labels)
    if target_mask_prob and streams is not None:
        keys = np.array([key(stream, "target word-drop") for stream in streams], np.uint64)
        _drop(seen, labels != _IGNORED, keys, target_mask_prob, special_ids.mask)
    start = np.full((len(features), 1), special_ids.sos, np.int64)
    batch["labels"] = torch.from_numpy(labels)
    batch["decoder_input_ids"] = torch.from_numpy(np.concatenate([start, seen[:, :-1]], axis=1))
    return batch


def decode_targets(sequences: Tensor | Sequence[Sequence[int]], tokenizer: TextTokenizer) -> list[str]:
    """Texts of generated rows: what stands before the first [EOS], special tokens left out."""
    rows = sequences.tolist() if isinstance(sequences, Tensor) else sequences
    eos = tokenizer.special_ids.eos
    return [tokenizer.decode(row[: row.index(eos)] if eos in row else row) for row in map(list, rows)]


def _padded(rows: Sequence[Any], filler: int) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), filler, np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


@njit(nogil=True)
def _drop(seen, used, keys, probability, mask_id):  # type: ignore[no-untyped-def]
    for b in range(seen.shape[0]):
        for t in range(seen.shape[1]):
            # 53 random bits, as many as a float64 in [0, 1) holds.
            chance = np.float64(draw(keys[b], np.uint64(t)) >> np.uint64(11)) * 2.0**-53
            if used[b, t] and chance < probability:
                seen[b, t] = mask_id
