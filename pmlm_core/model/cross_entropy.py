"""Cross-entropy over a large vocabulary, in slices: product, softmax, and at once the gradient products, so that no
more than one slice of logits ever exists and it is used while it is in the cache."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pmlm_core.errors import in_a_line
from pmlm_core.model.cross_entropy_rows import cross_entropy_
from pmlm_core.model.device import eager_on_cpu, product_dtype

IGNORED = -100
"""The label of a slot that is not predicted."""


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
    loss_1, correct_1 = cross_entropy_sums(states_RD, weight_VD, bias_V, labels_R, 1, slice_rows, label_smoothing)
    return loss_1[0], correct_1[0]


def cross_entropy_sums(
    states_RD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    labels_R: Tensor,
    parts: int,
    slice_rows: int = 1024,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The same for `parts` equal parts of the rows: sums [P] and counts [P], through one set of products.

    Gradients cost nothing more where all parts have the same weight in the loss; otherwise they are computed anew.
    """
    return _CrossEntropySums.apply(
        states_RD,
        weight_VD,
        bias_V,
        labels_R,
        parts,
        product_dtype(states_RD),
        slice_rows,
        label_smoothing,
        torch.is_grad_enabled(),
    )


class _CrossEntropySums(torch.autograd.Function):
    """The products in `dtype`, softmax and sums in fp32 or better; gradients for a loss of scale 1, made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        states_RD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        labels_R: Tensor,
        parts: int,
        dtype: torch.dtype,
        slice_rows: int,
        smoothing: float,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        how = dtype, slice_rows, smoothing
        inputs = states_RD, weight_VD, bias_V, labels_R
        losses_R, right_R, ctx.gradients = _in_slices(*inputs, None, with_gradient, *how)
        ctx.save_for_backward(*inputs)
        ctx.how = how
        correct_P = right_R.view(parts, -1).sum(1)
        ctx.mark_non_differentiable(correct_P)
        return losses_R.view(parts, -1).sum(1), correct_P

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        scale_P = output_gradients[0]
        if ctx.gradients is None:
            raise RuntimeError("the gradient of cross_entropy_sum is made once; for another backward, call it again")
        if scale_P.shape[0] == 1 or (eager_on_cpu(scale_P) and bool((scale_P == scale_P[0]).all())):
            gradients: list[Tensor] | None = [gradient.mul_(scale_P[0]) for gradient in ctx.gradients]
        else:
            states_RD, weight_VD, bias_V, labels_R = ctx.saved_tensors
            scale_R = scale_P.repeat_interleave(states_RD.shape[0] // scale_P.shape[0])
            gradients = _in_slices(states_RD, weight_VD, bias_V, labels_R, scale_R, True, *ctx.how)[2]
        ctx.gradients = None
        assert gradients is not None
        return *gradients, None, None, None, None, None, None


def _in_slices(
    states_RD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    labels_R: Tensor,
    scale_R: Tensor | None,
    with_gradient: bool,
    dtype: torch.dtype,
    slice_rows: int,
    smoothing: float,
) -> tuple[Tensor, Tensor, list[Tensor] | None]:
    """Loss of every row, whether its largest logit is at the label, and the gradients of states, weight and bias.

    Args:
        scale_R: weight of every row's loss in the gradients; None for 1.
    """
    precise = torch.promote_types(dtype, torch.float32)
    rows, device = states_RD.shape[0], states_RD.device
    classes = weight_VD.shape[0]
    weight, bias = _for_products(weight_VD, dtype), _for_products(bias_V, dtype)
    losses_R = torch.zeros(rows, dtype=precise, device=device)
    right_R = torch.zeros(rows, dtype=torch.int64, device=device)
    states_grad_RD = torch.empty_like(states_RD)
    weight_grad_VD: Tensor | None = None
    bias_grad_V = torch.zeros_like(bias_V, dtype=precise)
    of_slice = _of_slice(states_RD, dtype)
    with torch.autocast(device.type, enabled=False):
        for start in range(0, rows, slice_rows):
            part = slice(start, start + slice_rows)
            states = states_RD[part].to(dtype)
            # From here on the logits turn into their gradient.
            grad_RV = F.linear(states, weight, bias)
            losses_R[part], right_R[part], bias_sum_V = of_slice(
                grad_RV[:, :classes], labels_R[part], IGNORED, smoothing, None if scale_R is None else scale_R[part]
            )
            if with_gradient:
                bias_grad_V += bias_sum_V
                states_grad_RD[part] = grad_RV @ weight
                weight_grad_VD = _add_product(weight_grad_VD, grad_RV.t(), states, precise)
    if not with_gradient:
        return losses_R, right_R, None
    if weight_grad_VD is None:
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=precise)
    return losses_R, right_R, [states_grad_RD, weight_grad_VD[:classes], bias_grad_V]


def _for_products(x_V: Tensor, dtype: torch.dtype) -> Tensor:
    """Weight or bias in `dtype`; on a GPU with rows of zeros up to a multiple of 64.

    With 30,522 words, as BERT has them, products take three times as long as with 30,528: their rows do not begin where
    loads want them to. The logits of such rows are 0 and stay so, which is the gradient they need.
    """
    if eager_on_cpu(x_V) or x_V.shape[0] % 64 == 0:
        return x_V.to(dtype)
    padded = x_V.new_zeros((-(-x_V.shape[0] // 64) * 64, *x_V.shape[1:]), dtype=dtype)
    padded[: x_V.shape[0]] = x_V
    return padded


def _of_slice(states_RD: Tensor, dtype: torch.dtype) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """What turns a slice of logits into its gradient, by device."""
    if eager_on_cpu(states_RD):
        return cross_entropy_
    on_gpu = states_RD.device.type == "cuda" and not torch.compiler.is_compiling()
    if on_gpu and dtype != torch.float64 and find_spec("triton") is not None and _passes(states_RD.device, dtype):
        from pmlm_core.model import cross_entropy_tiled

        return cross_entropy_tiled.cross_entropy_
    return _cross_entropy_anywhere


@cache
def _passes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel compiles, runs and agrees, tried once in a process; a warning says if not."""
    try:
        from pmlm_core.model import cross_entropy_tiled

        # Whole blocks and a last one that is not full, as a vocabulary has.
        block = cross_entropy_tiled.BLOCK
        classes = 3 * block + 100
        logits_RV = torch.randn(4, classes, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        labels_R = torch.tensor([3, IGNORED, block, classes - 1], device=device)
        logits_RV[2, block] = 9.0
        made = []
        for of_slice in (cross_entropy_tiled.cross_entropy_, _cross_entropy_anywhere):
            changed_RV = logits_RV.clone()
            losses_R, right_R, bias_sum_V = of_slice(changed_RV, labels_R, IGNORED, 0.0, None)
            made.append(torch.cat([x.float().flatten() for x in (losses_R, right_R, bias_sum_V, changed_RV)]))
        ours, expected = made
        problem = "" if torch.allclose(ours, expected, rtol=0.02, atol=0.02) else "gives other numbers"
    except Exception as error:  # whatever a compiler or driver may raise
        problem = f"failed ({in_a_line(error)})"
    if problem:
        warnings.warn(f"The cross-entropy kernel {problem} on {device}; torch's own is taken.", stacklevel=2)
    return not problem


def _cross_entropy_anywhere(
    logits_RV: Tensor, labels_R: Tensor, ignored: int, smoothing: float, scale_R: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`cross_entropy_rows.cross_entropy_` in torch's own operations, for a GPU and `torch.compile`.

    Args:
        scale_R: weight of every row's loss in the gradient; None for 1.
    """
    precise = torch.promote_types(logits_RV.dtype, torch.float32)
    used_R = labels_R != ignored
    targets_R1 = labels_R.clamp(min=0)[:, None]
    right_R = (logits_RV.argmax(-1) == labels_R) & used_R
    logs_RV = torch.log_softmax(logits_RV.to(precise), dim=-1)
    expected_R = logs_RV.gather(1, targets_R1).squeeze(1)
    if smoothing:
        expected_R = (1 - smoothing) * expected_R + smoothing * logs_RV.mean(-1)
    grad_RV = logs_RV.exp_()
    if smoothing:
        grad_RV.sub_(smoothing / grad_RV.shape[1])
    grad_RV.scatter_add_(1, targets_R1, grad_RV.new_full(targets_R1.shape, smoothing - 1.0))
    grad_RV.mul_((used_R if scale_R is None else used_R * scale_R)[:, None])
    logits_RV.copy_(grad_RV)
    return -torch.where(used_R, expected_R, 0), right_R.long(), grad_RV.sum(0)


def _add_product(total: Tensor | None, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """total + left @ right in `dtype`, where None is zero and nothing is copied that need not be."""
    if total is None:
        return (left @ right).to(dtype)
    if total.dtype == left.dtype:
        return torch.addmm(total, left, right, out=total)
    return total.add_(left @ right)
