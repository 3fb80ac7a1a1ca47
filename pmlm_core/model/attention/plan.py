"""From a layout to the calls of a layer: which queries over which keys, with which bias. Made once a step, for all
layers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmlm_core.model.attention.interface import Call
from pmlm_core.model.pseudo import CONTEXT, Layout


@dataclass(frozen=True)
class Plan:
    """The calls of a full layer, and those of a last layer that computes only what is predicted.

    Attributes:
        full: queries are all T slots, in the layout's order.
        read: queries are the K conventional mask slots (if `read_ae`), then the K pseudo masks (if there is an appended
            part).
    """

    full: tuple[Call, ...]
    read: tuple[Call, ...]


def make_plan(
    layout: Layout,
    *,
    padded: bool,
    square_HPP: Tensor | None,
    position_ids_BN: Tensor | None,
    slot_positions_BK: Tensor | None,
    read_ae: bool,
    dtype: torch.dtype,
) -> Plan:
    """Args:
    layout: kinds and steps; with an appended part if it is longer than its context.
    padded: whether any context slot is padding; if none is, call A has one bias for the whole batch.
    square_HPP: relative bias between any two positions (`RelativeBias.square`); None for no bias.
    position_ids_BN: positions of the context; None for 0, 1, 2, ….
    slot_positions_BK: positions of the predicted slots.
    read_ae: whether the conventional masks are read (objective AE).
    dtype: of the attention products; the bias is added in it.
    """
    n, total = layout.context, layout.kinds_BT.shape[1]
    square = None if square_HPP is None else square_HPP.to(dtype)
    hidden_BN = (layout.kinds_BT[:, :n] != CONTEXT) if padded else None

    context = _context_bias(square, hidden_BN, position_ids_BN, n, dtype)
    full = [Call(0, n, n, context)]
    read: list[Call] = []
    if slot_positions_BK is None:
        return Plan(tuple(full), ())

    slots = slot_positions_BK.shape[1]
    rows_BHKP = None if square is None else _rows(square, slot_positions_BK)
    to_context_BHKN = None if rows_BHKP is None else _context_columns(rows_BHKP, position_ids_BN, n)
    if read_ae:
        read.append(Call(0, slots, n, _hide(to_context_BHKN, hidden_BN, dtype)))
    if total > n:
        hidden_BQT = ~layout.visible_from(n, total)
        bias_BHQT = _appended_bias(rows_BHKP, to_context_BHKN, slot_positions_BK, hidden_BQT, dtype)
        full.append(Call(n, total, total, bias_BHQT))
        start = slots if read_ae else 0
        read.append(Call(start, start + slots, total, bias_BHQT[:, :, :slots]))
    return Plan(tuple(full), tuple(read))


def _rows(square_HPP: Tensor, positions_BK: Tensor) -> Tensor:
    """The square's rows of the queries at these positions, [B, H, K, P]: whole rows, so a copy and no gather."""
    heads, reach, _ = square_HPP.shape
    batch, slots = positions_BK.shape
    return square_HPP.index_select(1, positions_BK.reshape(-1)).view(heads, batch, slots, reach).transpose(0, 1)


def _columns(rows_BHQP: Tensor, positions_BS: Tensor) -> Tensor:
    """Of each query's row, the columns of the keys at these positions."""
    batch, heads, queries, _ = rows_BHQP.shape
    return rows_BHQP.gather(3, positions_BS[:, None, None, :].expand(batch, heads, queries, -1))


def _context_columns(rows_BHQP: Tensor, position_ids_BN: Tensor | None, n: int) -> Tensor:
    return rows_BHQP[..., :n] if position_ids_BN is None else _columns(rows_BHQP, position_ids_BN)


def _context_bias(
    square: Tensor | None, hidden_BN: Tensor | None, position_ids_BN: Tensor | None, n: int, dtype: torch.dtype
) -> Tensor | None:
    if square is None:
        bias = None
    elif position_ids_BN is None:
        bias = square[None, :, :n, :n]
    else:
        bias = _columns(_rows(square, position_ids_BN), position_ids_BN)
    return _hide(bias, hidden_BN, dtype)


def _appended_bias(
    rows_BHKP: Tensor | None,
    to_context_BHKN: Tensor | None,
    slot_positions_BK: Tensor,
    hidden_BQT: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Pseudo masks and true tokens share positions: one block of bias serves both, as queries and as keys."""
    lowest = torch.finfo(dtype).min
    if rows_BHKP is None or to_context_BHKN is None:
        return torch.zeros_like(hidden_BQT, dtype=dtype).masked_fill(hidden_BQT, lowest)[:, None]
    to_slots_BHKK = _columns(rows_BHKP, slot_positions_BK)
    block = torch.cat([to_context_BHKN, to_slots_BHKK, to_slots_BHKK], dim=3)
    return torch.cat([block, block], dim=2).masked_fill(hidden_BQT[:, None], lowest)


def _hide(bias: Tensor | None, hidden: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """`bias` with hidden keys at the lowest finite number, whose softmax is exactly 0 beside any visible key."""
    if hidden is None:
        return bias
    hidden = hidden[:, None] if hidden.ndim == 3 else hidden[:, None, None]
    lowest = torch.finfo(dtype).min
    if bias is None:
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, lowest)
    return bias.masked_fill(hidden, lowest)
