"""From rows of blocks to the tensors of one micro-batch, in fixed shapes."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import DataError
from pmlm_core.jit import njit
from pmlm_core.model.cost import max_predictions
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.objectives import Objective

if TYPE_CHECKING:
    from pmlm_core.corpus.shard_reader import Rows

__all__ = ["collate", "max_predictions"]


def collate(
    rows: "Rows", *, objective: Objective | str, max_length: int, max_predictions: int, special_ids: SpecialIds
) -> dict[str, Tensor]:
    """Pad rows to fixed shapes, corrupt their context and number their factorization steps.

    Args:
        rows: B rows, ragged.
        objective: AR objectives get one token a step, in factorization order, blocks from left to right.
        max_length: N; every row must fit.
        max_predictions: K; the masked tokens of every row must fit (see `max_predictions`).
        special_ids: for padding.

    Returns:
        int64 tensors: `input_ids` (corrupted), `attention_mask`, `token_type_ids` [B, N]; `pseudo_position_ids`,
        `pseudo_steps` (1, 2, …; 0 is padding), `labels` (-100 is padding) [B, K], slots in factorization order.

    Raises:
        DataError: a row longer than N, or with more masked tokens than K.
    """
    batch = len(rows.offsets) - 1
    longest = int(np.diff(rows.offsets).max(initial=0))
    if longest > max_length:
        raise DataError(
            f"A row of the blocks holds {longest} tokens and max_length is {max_length}; "
            "train with the max_length that the blocks were made with."
        )
    most = int(np.diff(rows.masked_offsets).max(initial=0))
    if most > max_predictions:
        raise DataError(
            f"A row of the blocks holds {most} masked tokens and the batch has {max_predictions} slots; raise "
            "max_predictions (pmlm_core.model.cost.max_predictions gives what the masking options need)."
        )
    context = np.zeros((3, batch, max_length), np.int64)
    slots = np.zeros((3, batch, max_predictions), np.int64)
    context[0] = special_ids.pad
    slots[2] = IGNORED
    _fill(
        rows.input_ids,
        rows.offsets,
        rows.segment_starts,
        rows.positions,
        rows.masked_offsets,
        rows.replacement_ids,
        rows.step_lengths,
        rows.step_offsets,
        Objective(objective).one_token_per_step,
        context,
        slots,
    )
    input_ids, attention_mask, token_type_ids = torch.from_numpy(context).unbind(0)
    positions, steps, labels = torch.from_numpy(slots).unbind(0)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
        "pseudo_position_ids": positions,
        "pseudo_steps": steps,
        "labels": labels,
    }


@njit(nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    input_ids, offsets, segment_starts, positions, masked_offsets, replacements, step_lengths, step_offsets,
    one_token_per_step, context, slots,
):  # fmt: skip
    for b in range(len(offsets) - 1):
        first = offsets[b]
        length = offsets[b + 1] - first
        for i in range(length):
            context[0, b, i] = input_ids[first + i]
            context[1, b, i] = 1
            context[2, b, i] = i >= segment_starts[b]
        step, left = np.int64(0), np.int64(0)
        next_step = step_offsets[b]
        for k in range(masked_offsets[b + 1] - masked_offsets[b]):
            at = masked_offsets[b] + k
            p = positions[at]
            if left == 0:
                left = np.int64(step_lengths[next_step])
                next_step += 1
                step += 1
            elif one_token_per_step:
                step += 1
            left -= 1
            slots[0, b, k] = p
            slots[1, b, k] = step
            slots[2, b, k] = context[0, b, p]
            context[0, b, p] = replacements[at]
