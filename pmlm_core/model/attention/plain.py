"""Attention on a CPU: matrix products and softmax, one row of the batch at a time, gradients by hand.

Why by hand: the scores of one row stay in the cache through product, bias, softmax and product, and again in backward;
views of the fused projection are read in place, so nothing is transposed into a copy; and the gradient of a shared
bias is summed as it arises instead of being kept for the whole batch. `benchmarks/attention.py` holds it against the
alternatives.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pmlm_core.model.attention.interface import Call
from pmlm_core.model.dropout import keep_mask


def attend(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, calls: Sequence[Call], dropout_p: float) -> Tensor:
    """See `interface.Kernel`."""
    spans = tuple((call.start, call.stop, call.keys) for call in calls)
    biases = [call.bias for call in calls]
    return _Attention.apply(q_BQHE, k_BSHE, v_BSHE, spans, dropout_p, *biases)


def _row(bias: Tensor, b: int) -> Tensor:
    """The bias of batch row `b`, [h, Q, S]."""
    return bias[b if bias.shape[0] > 1 else 0]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BQHE: Tensor,
        k_BSHE: Tensor,
        v_BSHE: Tensor,
        spans: tuple[tuple[int, int, int], ...],
        dropout_p: float,
        *biases: Tensor | None,
    ) -> Tensor:
        rows, queries, heads, width = q_BQHE.shape
        scale = width**-0.5
        out_BQHE = q_BQHE.new_empty(rows, queries, heads, width)
        weights: list[Tensor] = []
        keeps: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            for (start, stop, keys), bias in zip(spans, biases, strict=True):
                weights_BHQS = q_BQHE.new_empty(rows, heads, stop - start, keys)
                keep_BHQS = keep_mask(weights_BHQS.shape, dropout_p) if dropout_p else None
                for b in range(rows):
                    q_HQE = q_BQHE[b, start:stop].transpose(0, 1)
                    k_HES = k_BSHE[b, :keys].permute(1, 2, 0)
                    v_HSE = v_BSHE[b, :keys].transpose(0, 1)
                    weights_HQS = weights_BHQS[b]
                    if bias is None:
                        torch.baddbmm(weights_HQS, q_HQE, k_HES, beta=0, alpha=scale, out=weights_HQS)
                    else:
                        torch.baddbmm(_row(bias, b), q_HQE, k_HES, alpha=scale, out=weights_HQS)
                    torch.softmax(weights_HQS, dim=-1, out=weights_HQS)
                    out_HQE = out_BQHE[b, start:stop].transpose(0, 1)
                    if keep_BHQS is None:
                        torch.bmm(weights_HQS, v_HSE, out=out_HQE)
                    else:
                        torch.bmm(weights_HQS * keep_BHQS[b], v_HSE, out=out_HQE)
                weights.append(weights_BHQS)
                if keep_BHQS is not None:
                    keeps.append(keep_BHQS)
        if keeps:
            out_BQHE.mul_(1 / (1 - dropout_p))
        ctx.save_for_backward(q_BQHE, k_BSHE, v_BSHE, *weights, *keeps)
        ctx.spans, ctx.dropout_p = spans, dropout_p
        ctx.bias_shapes = [None if bias is None else bias.shape for bias in biases]
        return out_BQHE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (out_grad_BQHE,) = gradients
        q_BQHE, k_BSHE, v_BSHE, *saved = ctx.saved_tensors
        weights, keeps = saved[: len(ctx.spans)], saved[len(ctx.spans) :]
        rows, _, heads, width = q_BQHE.shape
        scale = width**-0.5
        kept_scale = 1 / (1 - ctx.dropout_p)
        q_grad_BQHE = torch.empty_like(q_BQHE, memory_format=torch.contiguous_format)
        k_grad_BSHE = torch.empty_like(k_BSHE, memory_format=torch.contiguous_format)
        v_grad_BSHE = torch.empty_like(v_BSHE, memory_format=torch.contiguous_format)
        bias_grads: list[Tensor | None] = []
        written = 0  # keys whose gradient an earlier call has begun; later ones are set, not added to
        for index, (start, stop, keys) in enumerate(ctx.spans):
            wanted = ctx.needs_input_grad[5 + index]
            shape = ctx.bias_shapes[index]
            bias_grad = q_BQHE.new_zeros(shape) if wanted else None
            scores_grad_HQS = q_BQHE.new_empty(heads, stop - start, keys)
            for b in range(rows):
                q_HQE = q_BQHE[b, start:stop].transpose(0, 1)
                k_HSE = k_BSHE[b, :keys].transpose(0, 1)
                v_HES = v_BSHE[b, :keys].permute(1, 2, 0)
                g_HQE = out_grad_BQHE[b, start:stop].transpose(0, 1)
                weights_HQS = weights[index][b]
                if keeps:
                    dropped_HQS = weights_HQS * keeps[index][b]
                    torch.baddbmm(scores_grad_HQS, g_HQE, v_HES, beta=0, alpha=kept_scale, out=scores_grad_HQS)
                    scores_grad_HQS.mul_(keeps[index][b])
                else:
                    dropped_HQS = weights_HQS
                    torch.bmm(g_HQE, v_HES, out=scores_grad_HQS)
                _accumulate(v_grad_BSHE[b], dropped_HQS.transpose(1, 2), g_HQE, kept_scale if keeps else 1.0, written)
                torch._softmax_backward_data(
                    scores_grad_HQS, weights_HQS, -1, weights_HQS.dtype, grad_input=scores_grad_HQS
                )
                if bias_grad is not None:
                    target_HQS = _row(bias_grad, b)
                    target_HQS.add_(scores_grad_HQS.sum(0, keepdim=True) if shape[1] < heads else scores_grad_HQS)
                torch.baddbmm(
                    q_HQE, scores_grad_HQS, k_HSE, beta=0, alpha=scale, out=q_grad_BQHE[b, start:stop].transpose(0, 1)
                )
                _accumulate(k_grad_BSHE[b], scores_grad_HQS.transpose(1, 2), q_HQE, scale, written)
            bias_grads.append(bias_grad)
            written = max(written, keys)
        if written < k_BSHE.shape[1]:
            k_grad_BSHE[:, written:] = 0
            v_grad_BSHE[:, written:] = 0
        return q_grad_BQHE, k_grad_BSHE, v_grad_BSHE, None, None, *bias_grads


def _accumulate(grad_SHE: Tensor, left_HSQ: Tensor, right_HQE: Tensor, alpha: float, written: int) -> None:
    """grad[:S] += alpha * left @ right, where rows from `written` on hold nothing yet and are set."""
    keys = left_HSQ.shape[1]
    old = min(written, keys)
    if old:
        old_HSE = grad_SHE[:old].transpose(0, 1)
        torch.baddbmm(old_HSE, left_HSQ[:, :old], right_HQE, alpha=alpha, out=old_HSE)
    if old < keys:
        new_HSE = grad_SHE[old:keys].transpose(0, 1)
        torch.baddbmm(new_HSE, left_HSQ[:, old:], right_HQE, beta=0, alpha=alpha, out=new_HSE)
