"""Rows of blocks and batches made on the spot."""

import numpy as np
import torch
from torch import Tensor

from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.packing import Windows
from pmlm_core.corpus.shard_reader import Rows
from pmlm_core.corpus.special import SpecialIds


def random_rows(lengths: list[int], vocab_size: int = 60, seed: int = 0, mask_prob: float = 0.3) -> Rows:
    """Rows of random ordinary tokens as preprocessing would make them: [SOS] S1 [EOS] S2 [EOS], masked by Algorithm
    1."""
    draw = np.random.default_rng(seed)
    rows, starts = [], []
    for length in lengths:
        ids = draw.integers(6, vocab_size, length).astype(np.int32)
        middle = int(draw.integers(2, length - 2))
        ids[0], ids[middle], ids[-1] = 0, 2, 2
        rows.append(ids)
        starts.append(middle + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    windows = Windows(np.concatenate(rows), offsets, np.array(starts, np.int32))
    view = mask_windows(
        windows,
        view=0,
        stream_key=seed,
        first_row=0,
        special_ids=SpecialIds(),
        ordinary_ids=np.arange(6, vocab_size),
        mask_prob=mask_prob,
    )
    return Rows(
        windows.input_ids,
        windows.offsets,
        windows.segment_starts,
        view.positions,
        view.offsets,
        view.replacement_ids,
        view.step_lengths,
        view.step_offsets,
    )


def unpadded_batch(rows: int, n: int, k: int, vocab_size: int) -> dict[str, Tensor]:
    """Random tokens of which the first `k` of `n` are predicted, one a step."""
    return {
        "input_ids": torch.randint(6, vocab_size, (rows, n)),
        "pseudo_position_ids": torch.arange(k).expand(rows, k),
        "pseudo_steps": torch.arange(1, k + 1).expand(rows, k),
        "labels": torch.randint(6, vocab_size, (rows, k)),
    }
