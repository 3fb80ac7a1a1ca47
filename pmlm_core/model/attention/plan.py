"""From a layout to the calls of a layer: which queries over which keys, with which bias and which of them hidden. Made
once a step, for all layers: dense, or in structure where the kernel wants it so."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pmlm_core.model.attention.interface import Call, Places, Rule
from pmlm_core.model.attention.layer_sums import binned_over_layers, summed_over_layers
from pmlm_core.model.attention.relbias import ByDistance, RelativeBias
from pmlm_core.model.pseudo import CONTEXT, Codes, Layout, codes


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
    relative: RelativeBias | None,
    reach: int,
    position_ids_BN: Tensor | None,
    slot_positions_BK: Tensor | None,
    read_ae: bool,
    dtype: torch.dtype,
    kernel: str,
) -> Plan:
    """Settle the calls of a layer for one layout, with their bias and visibility in the form that the kernel wants.

    Args:
        layout: kinds and steps; with an appended part if it is longer than its context.
        padded: whether any context slot is padding; if none is, call A hides nothing.
        relative: the relative bias; None for no bias.
        reach: a number above every position.
        position_ids_BN: positions of the context; None for 0, 1, 2, ….
        slot_positions_BK: positions of the predicted slots.
        read_ae: whether the conventional masks are read (objective AE).
        dtype: of the attention products; a dense bias is added in it.
        kernel: by which name the calls will be computed (`choice.kernel_for`).
    """
    if kernel == "triton":
        bias = None if relative is None else binned_over_layers(relative.in_order(reach))
        return _structured(layout, padded, bias, position_ids_BN, slot_positions_BK, read_ae)
    square_HPP = None if relative is None else relative.square(reach).to(dtype)
    plan = _dense(layout, padded, square_HPP, position_ids_BN, slot_positions_BK, read_ae, dtype)
    return Plan(tuple(map(_summing, plan.full)), plan.read) if kernel == "plain" else plan


def _summing(call: Call) -> Call:
    """The call of a full layer, of which there are many."""
    if call.bias is None:
        return call
    bias, sums = summed_over_layers(call.bias)
    return replace(call, bias=bias, sums=sums)


def _structured(
    layout: Layout,
    padded: bool,
    bias: ByDistance | None,
    position_ids_BN: Tensor | None,
    slot_positions_BK: Tensor | None,
    read_ae: bool,
) -> Plan:
    n, total = layout.context, layout.kinds_BT.shape[1]
    context, appended, everything = slice(0, n), slice(n, total), slice(0, total)
    codes_BT = codes(layout.kinds_BT, layout.steps_BT)
    at_context = None if position_ids_BN is None else Places.of(position_ids_BN)
    hidden = codes_BT.of(context, context) if padded else None
    plain = n if position_ids_BN is None and not padded else 0
    full = [Call(0, n, n, rule=Rule(bias, at_context, at_context, hidden, plain))]
    if slot_positions_BK is None:
        return Plan(tuple(full), ())

    batch, slots = slot_positions_BK.shape
    at_slots = Places.of(slot_positions_BK)
    read: list[Call] = []
    if read_ae:
        if padded:
            # The masks are context, wherever they stand.
            limit_BK = torch.zeros_like(at_slots.at_BL)
            hidden = Codes(codes_BT.key_BS[:, context], limit_BK, limit_BK - 1)
        read.append(Call(0, slots, n, rule=Rule(bias, at_slots, at_context, hidden, plain)))
    if total > n:
        if position_ids_BN is None:
            position_ids_BN = torch.arange(n, device=slot_positions_BK.device).expand(batch, n)
        keys = Places.of(torch.cat([position_ids_BN, slot_positions_BK, slot_positions_BK], dim=1))
        queries = Places.of(torch.cat([slot_positions_BK, slot_positions_BK], dim=1))
        full.append(Call(n, total, total, rule=Rule(bias, queries, keys, codes_BT.of(appended, everything), plain)))
        start, pseudo = slots if read_ae else 0, slice(n, n + slots)
        rule = Rule(bias, at_slots, keys, codes_BT.of(pseudo, everything), plain)
        read.append(Call(start, start + slots, total, rule=rule))
    return Plan(tuple(full), tuple(read))


def _dense(
    layout: Layout,
    padded: bool,
    square: Tensor | None,
    position_ids_BN: Tensor | None,
    slot_positions_BK: Tensor | None,
    read_ae: bool,
    dtype: torch.dtype,
) -> Plan:
    n, total = layout.context, layout.kinds_BT.shape[1]
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
    return torch.cat([block, block], dim=2).masked_fill_(hidden_BQT[:, None], lowest)


def _hide(bias: Tensor | None, hidden: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """`bias` with hidden keys at the lowest finite number, whose softmax is exactly 0 beside any visible key."""
    if hidden is None:
        return bias
    hidden = hidden[:, None] if hidden.ndim == 3 else hidden[:, None, None]
    lowest = torch.finfo(dtype).min
    if bias is None:
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, lowest)
    return bias.masked_fill(hidden, lowest)
