"""Attention on a CPU: matrix products and softmax, one row of the batch at a time, gradients by hand.

Why by hand: the scores of one row stay in the cache through product, bias, softmax and product, and again in backward;
the products get operands in order, where torch would transpose views of the fused projection number by number; the
gradient of a shared bias is summed as it arises, over rows in fp32 and over layers in one place; and bias, softmax,
dropout and their gradients are single passes (`softmax`). `benchmarks/attention.py` holds it against the alternatives.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pmlm_core.model.attention.interface import Call
from pmlm_core.model.attention.layer_sums import LayerSums
from pmlm_core.model.attention.softmax import softmax_, softmax_backward_
from pmlm_core.model.dropout import draw_seed


def attend(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, calls: Sequence[Call], dropout_p: float) -> Tensor:
    """See `interface.Kernel`."""
    spans = tuple((call.start, call.stop, call.keys) for call in calls)
    biases, sums = [call.bias for call in calls], tuple(call.sums for call in calls)
    return _Attention.apply(q_BQHE, k_BSHE, v_BSHE, spans, sums, dropout_p, *biases)


def _rows(x_BLHE: Tensor, start: int, stop: int) -> tuple[Tensor, ...]:
    """Views [H, L, E] of positions `start:stop`, one for each row of the batch."""
    return x_BLHE[:, start:stop].transpose(1, 2).unbind(0)


def _in_order(x_BLHE: Tensor, start: int, stop: int) -> Iterator[Tensor]:
    """Copies [H, L, E] of the same, contiguous, one at a time."""
    return (row_HLE.contiguous() for row_HLE in _rows(x_BLHE, start, stop))


def _bias_rows(bias: Tensor | None, rows: int) -> Sequence[Tensor | None]:
    if bias is None or bias.shape[0] == 1:
        return [None if bias is None else bias[0]] * rows
    return bias.unbind(0)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BQHE: Tensor,
        k_BSHE: Tensor,
        v_BSHE: Tensor,
        spans: tuple[tuple[int, int, int], ...],
        sums: tuple[LayerSums | None, ...],
        dropout_p: float,
        *biases: Tensor | None,
    ) -> Tensor:
        rows, queries, heads, width = q_BQHE.shape
        out_BQHE = q_BQHE.new_empty(rows, queries, heads, width)
        weights: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            for (start, stop, keys), bias in zip(spans, biases, strict=True):
                weights_BHQS = q_BQHE.new_empty(rows, heads, stop - start, keys)
                weights.append(weights_BHQS)
                seed = draw_seed() if dropout_p else 0
                scratch_HQS = torch.empty_like(weights_BHQS[0]) if dropout_p else None
                for b, (q_HQE, k_HSE, v_HSE, bias_HQS, weights_HQS, out_HQE) in enumerate(
                    zip(
                        _in_order(q_BQHE, start, stop),
                        _in_order(k_BSHE, 0, keys),
                        _in_order(v_BSHE, 0, keys),
                        _bias_rows(bias, rows),
                        weights_BHQS.unbind(0),
                        _rows(out_BQHE, start, stop),
                        strict=True,
                    )
                ):
                    torch.bmm(q_HQE, k_HSE.transpose(1, 2), out=weights_HQS)
                    kept_HQS = weights_HQS if scratch_HQS is None else scratch_HQS
                    softmax_(
                        weights_HQS,
                        kept_HQS,
                        bias_HQS,
                        scale=width**-0.5,
                        dropout_p=dropout_p,
                        seed=seed,
                        row=b,
                    )
                    torch.bmm(kept_HQS, v_HSE, out=out_HQE)
        if dropout_p:
            out_BQHE.mul_(1 / (1 - dropout_p))
        ctx.save_for_backward(q_BQHE, k_BSHE, v_BSHE, *weights)
        ctx.spans, ctx.sums, ctx.dropout_p = spans, sums, dropout_p
        ctx.biases = [None if bias is None else (bias.shape, bias.dtype) for bias in biases]
        return out_BQHE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (out_grad_BQHE,) = gradients
        q_BQHE, k_BSHE, v_BSHE, *weights = ctx.saved_tensors
        rows, _, heads, width = q_BQHE.shape
        scale, kept_scale = width**-0.5, 1 / (1 - ctx.dropout_p)
        q_grad_BQHE, k_grad_BSHE, v_grad_BSHE = (torch.empty(x.shape, dtype=x.dtype) for x in (q_BQHE, k_BSHE, v_BSHE))
        bias_grads: list[Tensor | None] = [None] * len(ctx.spans)
        # The call over the most keys first: it sets the key gradients, the others add to them.
        order = sorted(range(len(ctx.spans)), key=lambda call: -ctx.spans[call][2])
        most_keys = ctx.spans[order[0]][2]
        k_grad_BSHE[:, most_keys:] = 0
        v_grad_BSHE[:, most_keys:] = 0
        for call in order:
            start, stop, keys = ctx.spans[call]
            first = call == order[0]
            bias_grad, of_layers = None, ctx.sums[call]
            if ctx.needs_input_grad[6 + call]:
                bias_grad = (of_layers or LayerSums()).total(*_sums_form(ctx.biases[call], rows, heads))
            scores_grad_HQS = q_BQHE.new_empty(heads, stop - start, keys)
            scratch_HQS = torch.empty_like(scores_grad_HQS) if ctx.dropout_p else None
            for q_HQE, k_HSE, v_HSE, g_HQE, weights_HQS, q_grad_HQE, k_grad_HSE, v_grad_HSE, bias_grad_HQS in zip(
                _in_order(q_BQHE, start, stop),
                _in_order(k_BSHE, 0, keys),
                _in_order(v_BSHE, 0, keys),
                _in_order(out_grad_BQHE, start, stop),
                weights[call].unbind(0),
                _rows(q_grad_BQHE, start, stop),
                _rows(k_grad_BSHE, 0, keys),
                _rows(v_grad_BSHE, 0, keys),
                _bias_rows(bias_grad, rows),
                strict=True,
            ):
                kept_HQS = weights_HQS if scratch_HQS is None else scratch_HQS
                torch.bmm(g_HQE, v_HSE.transpose(1, 2), out=scores_grad_HQS)
                softmax_backward_(scores_grad_HQS, weights_HQS, kept_HQS, bias_grad_HQS, ctx.dropout_p)
                _product(v_grad_HSE, kept_HQS.transpose(1, 2), g_HQE, kept_scale, None if first else v_grad_HSE)
                _product(q_grad_HQE, scores_grad_HQS, k_HSE, scale)
                _product(k_grad_HSE, scores_grad_HQS.transpose(1, 2), q_HQE, scale, None if first else k_grad_HSE)
            if bias_grad is not None and of_layers is None:
                shape, dtype = ctx.biases[call]
                bias_grads[call] = bias_grad.sum_to_size(shape).to(dtype)
        return q_grad_BQHE, k_grad_BSHE, v_grad_BSHE, None, None, None, *bias_grads


def _sums_form(bias: tuple[torch.Size, torch.dtype], rows: int, heads: int) -> tuple[torch.Size, torch.dtype]:
    """Form of the sums for a bias' gradient; a bias that all rows share has it summed in fp32 at least."""
    (of_rows, _, queries, keys), dtype = bias
    dtype = dtype if of_rows == rows else torch.promote_types(dtype, torch.float32)
    return torch.Size((of_rows, heads, queries, keys)), dtype


def _product(out: Tensor, left: Tensor, right: Tensor, scale: float, added: Tensor | None = None) -> None:
    """out = scale * left @ right (+ added), in one call."""
    if added is None:
        torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)
    else:
        torch.baddbmm(added, left, right, alpha=scale, out=out)
