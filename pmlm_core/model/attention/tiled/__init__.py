"""Attention on a GPU by own Triton kernels: no score, bias or mask is ever in memory beyond a tile.

The relative bias is looked up by distance, visibility is computed from codes (`interface.Rule`), and the gradient of
the bias is summed by bin in the kernels: deterministic, as everything here. Without a GPU the kernels run in Triton's
interpreter, if TRITON_INTERPRET=1 is set before Triton is imported.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from pmlm_core.model.attention.interface import Call
from pmlm_core.model.attention.relbias import BinParts, ByDistance, by_bin
from pmlm_core.model.attention.thirds import side_by_side
from pmlm_core.model.attention.tiled.backward import Backward
from pmlm_core.model.attention.tiled.forward import forward
from pmlm_core.model.attention.tiled.launch import Given, rule_of, strides
from pmlm_core.model.attention.tiled.queries import deltas
from pmlm_core.model.attention.tiled.sizes import tile
from pmlm_core.model.device import current


def attend(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, calls: Sequence[Call], dropout_p: float) -> Tensor:
    """See `interface.Kernel`; the calls carry rules."""
    bias = rule_of(calls[0]).bias
    weight_HM = None if bias is None else bias.weight_HM
    return _Attention.apply(q_BQHE, k_BSHE, v_BSHE, weight_HM, tuple(calls), dropout_p)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BQHE: Tensor,
        k_BSHE: Tensor,
        v_BSHE: Tensor,
        weight_HM: Tensor | None,
        calls: tuple[Call, ...],
        dropout_p: float,
    ) -> Tensor:
        q, k, v = (_rows_whole(x) for x in (q_BQHE, k_BSHE, v_BSHE))
        if k.stride() != v.stride():
            k, v = k.contiguous(), v.contiguous()
        batch, queries, heads, width = q.shape
        out_BQHE = q.new_empty(q.shape)
        lse_BHQ = q.new_empty(batch, heads, queries, dtype=torch.float32)
        # An odd number for each query and key: drawn on the device, so that nobody waits, and by torch, so that its
        # seed repeats them.
        random = lse_BHQ
        if dropout_p:
            shape = (batch, heads, queries + k.shape[1])
            random = torch.randint(-(2**31), 2**31, shape, dtype=torch.int32, device=q.device).bitwise_or_(1)
        with current(q):
            for call in calls:
                size = tile("forward", width, q.dtype)
                q_part, out_part = q[:, call.start : call.stop], out_BQHE[:, call.start : call.stop]
                given = Given(call, q, size, dropout_p)
                forward[(triton.cdiv(call.stop - call.start, size.queries) * batch * heads,)](
                    q_part,
                    k,
                    v,
                    out_part,
                    lse_BHQ,
                    given.table,
                    *given.places,
                    *given.codes,
                    random,
                    *strides(q_part),
                    *strides(k),
                    *strides(out_part),
                    queries,
                    random.shape[2],
                    *given.code_strides,
                    given.start,
                    given.queries,
                    given.rule.plain,
                    given.keys,
                    heads,
                    given.reach,
                    given.far,
                    given.scale,
                    *given.dropout,
                    **given.has_bias,
                    **given.q_places,
                    **given.both(),
                    **given.options,
                )
        ctx.save_for_backward(q, k, v, out_BQHE, lse_BHQ, random)
        ctx.calls, ctx.dropout_p = calls, dropout_p
        return out_BQHE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        q, k, v, out_BQHE, lse_BHQ, random = ctx.saved_tensors
        batch, queries, heads, width = q.shape
        grad = _rows_whole(gradients[0])
        if q.shape == k.shape:
            q_grad, k_grad, v_grad = side_by_side(q, 3)
        else:
            (q_grad,), (k_grad, v_grad) = side_by_side(q, 1), side_by_side(k, 2)
        delta_BHQ = torch.empty_like(lse_BHQ)
        parts: list[BinParts] = []
        # The call over the most keys first: it sets the keys' gradients, the others add to them, or come with it.
        calls: list[Call] = sorted(ctx.calls, key=lambda call: -call.keys)
        k_grad[:, calls[0].keys :] = 0
        v_grad[:, calls[0].keys :] = 0
        with current(q):
            block = 64
            deltas[(triton.cdiv(queries, block) * batch * heads,)](
                out_BQHE,
                grad,
                delta_BHQ,
                *strides(out_BQHE),
                *strides(grad),
                queries,
                heads,
                WIDTH=width,
                BLOCK_Q=block,
            )
            saved = [
                Backward(
                    call,
                    q[:, call.start : call.stop],
                    k,
                    v,
                    grad[:, call.start : call.stop],
                    lse_BHQ,
                    delta_BHQ,
                    random,
                    ctx.dropout_p,
                )
                for call in calls
            ]
            both = len(saved) == 2 and saved[1].only_plain(saved[0])
            for each in saved:
                first, part = each is saved[0], q_grad[:, each.call.start : each.call.stop]
                if first or not both:
                    each.keys_gradient(k_grad, v_grad, add=not first, more=saved[1] if both else None)
                if ctx.needs_input_grad[3]:
                    parts.append(each.bias_gradient(part))
                else:
                    each.queries_gradient(part)
        return q_grad, k_grad, v_grad, _summed(parts, rule_of(calls[0]).bias), None, None


def _summed(parts: list[BinParts], bias: ByDistance | None) -> Tensor | None:
    """The gradient of the bias by bin, unless its parts wait for those of other layers."""
    if not parts or bias is None:
        return None
    if bias.sums is not None:
        bias.sums.add(parts)
        return None
    return by_bin(parts, bias.weight_HM.shape[1])


def _rows_whole(x_BLHE: Tensor) -> Tensor:
    """The same with heads whose numbers lie side by side, as the kernels read them."""
    return x_BLHE if x_BLHE.stride(-1) == 1 else x_BLHE.contiguous()
