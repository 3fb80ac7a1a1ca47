"""The output layer: dense, GELU, LayerNorm, then the tied token embedding plus a bias; and its loss, in slices.

The logits of all slots at once are the largest tensor of a small model (V numbers a slot). The loss takes them slice by
slice: product, softmax, and at once the gradient products, so no more than one slice of logits ever exists and it is
used while it is in the cache.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.device import eager_on_cpu
from pmlm_core.model.layer import ACTIVATIONS
from pmlm_core.model.softmax_loss import cross_entropy_

IGNORED = -100
"""The label of a slot that is not predicted."""


class LanguageModelHead(nn.Module):
    """Logits over the vocabulary. The token embedding comes with each call: one weight, tied by construction."""

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.activation = ACTIVATIONS[config.hidden_act]

    def transform(self, states_D: Tensor) -> Tensor:
        """What the embedding is multiplied with, [..., D]."""
        return self.norm(self.activation(self.dense(states_D)))

    def forward(self, states_D: Tensor, embedding_VD: Tensor) -> Tensor:
        """Logits, [..., V]."""
        return F.linear(self.transform(states_D), embedding_VD, self.bias)

    def loss(
        self, states_BKD: Tensor, embedding_VD: Tensor, labels_BK: Tensor, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over the slots whose label is not -100, and how many of them are predicted rightly."""
        states_RD, labels_R = states_BKD.flatten(0, 1), labels_BK.flatten()
        if eager_on_cpu(states_RD):
            # Slots that are padding cost as much as the others; on a GPU, looking where they are would cost more.
            used = (labels_R != IGNORED).nonzero().squeeze(1)
            states_RD, labels_R = states_RD[used], labels_R[used]
        return cross_entropy_sum(
            self.transform(states_RD), embedding_VD, self.bias, labels_R, label_smoothing=label_smoothing
        )


def cross_entropy_sum(
    states_RD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    labels_R: Tensor,
    slice_rows: int = 1024,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies of `states @ weight.T + bias` at `labels`, and the number of right predictions.

    Args:
        labels_R: class of each row, or -100 to leave the row out.
        slice_rows: rows whose logits exist at a time.
        label_smoothing: the share e of the target distribution that is spread evenly over all V classes: the loss of a
            row is -(1 - e) log p[label] - e / V sum_v log p[v], as `torch.nn.functional.cross_entropy` has it.

    Returns:
        (loss, fp32 or better, differentiable once; count, int64).

    >>> states, weight = torch.eye(2), 9 * torch.eye(2)
    >>> loss, correct = cross_entropy_sum(states, weight, torch.zeros(2), torch.tensor([0, -100]))
    >>> round(loss.item(), 6), correct.item()
    (0.000123, 1)
    """
    device = states_RD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states_RD.dtype
    return _CrossEntropySum.apply(
        states_RD, weight_VD, bias_V, labels_R, dtype, slice_rows, label_smoothing, torch.is_grad_enabled()
    )


class _CrossEntropySum(torch.autograd.Function):
    """The products in `dtype`, softmax and sums in fp32 or better; gradients for a loss of scale 1, made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        states_RD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        labels_R: Tensor,
        dtype: torch.dtype,
        slice_rows: int,
        smoothing: float,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(dtype, torch.float32)
        weight, bias = weight_VD.to(dtype), bias_V.to(dtype)
        loss = torch.zeros((), dtype=precise, device=states_RD.device)
        correct = torch.zeros((), dtype=torch.int64, device=states_RD.device)
        states_grad_RD = torch.empty_like(states_RD) if with_gradient else None
        weight_grad_VD: Tensor | None = None
        bias_grad_V = torch.zeros_like(bias_V, dtype=precise)
        slice_loss = cross_entropy_ if eager_on_cpu(states_RD) else _cross_entropy_anywhere
        with torch.autocast(states_RD.device.type, enabled=False):
            for start in range(0, len(states_RD), slice_rows):
                states = states_RD[start : start + slice_rows].to(dtype)
                # From here on the logits turn into their gradient.
                grad_RV = F.linear(states, weight, bias)
                added_loss, added_correct, added_bias_V = slice_loss(
                    grad_RV, labels_R[start : start + slice_rows], IGNORED, smoothing
                )
                loss += added_loss
                correct += added_correct
                if states_grad_RD is None:
                    continue
                bias_grad_V += added_bias_V
                states_grad_RD[start : start + slice_rows] = grad_RV @ weight
                weight_grad_VD = _add_product(weight_grad_VD, grad_RV.t(), states, precise)
        if weight_grad_VD is None:
            weight_grad_VD = torch.zeros_like(weight_VD, dtype=precise)
        if with_gradient:
            ctx.save_for_backward(states_grad_RD, weight_grad_VD, bias_grad_V)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        scale = gradients[0]
        states_grad_RD, weight_grad_VD, bias_grad_V = ctx.saved_tensors
        return states_grad_RD * scale, weight_grad_VD * scale, bias_grad_V * scale, None, None, None, None, None


def _cross_entropy_anywhere(
    logits_RV: Tensor, labels_R: Tensor, ignored: int, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`softmax_loss.cross_entropy_` in torch's own operations, for a GPU and `torch.compile`."""
    precise = torch.promote_types(logits_RV.dtype, torch.float32)
    used_R = labels_R != ignored
    targets_R1 = labels_R.clamp(min=0)[:, None]
    right_R = (logits_RV.argmax(-1) == labels_R) & used_R
    logs_RV = torch.log_softmax(logits_RV.to(precise), dim=-1)
    expected_R = logs_RV.gather(1, targets_R1).squeeze(1)
    if smoothing:
        expected_R = (1 - smoothing) * expected_R + smoothing * logs_RV.mean(-1)
    loss = -torch.where(used_R, expected_R, 0).sum()
    grad_RV = logs_RV.exp_()
    if smoothing:
        grad_RV.sub_(smoothing / grad_RV.shape[1])
    grad_RV.scatter_add_(1, targets_R1, grad_RV.new_full(targets_R1.shape, smoothing - 1.0))
    grad_RV.mul_(used_R[:, None])
    logits_RV.copy_(grad_RV)
    return loss, right_R.sum(), grad_RV.sum(0)


def _add_product(total: Tensor | None, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """total + left @ right in `dtype`, where None is zero and nothing is copied that need not be."""
    if total is None:
        return (left @ right).to(dtype)
    if total.dtype == left.dtype:
        return torch.addmm(total, left, right, out=total)
    return total.add_(left @ right)
