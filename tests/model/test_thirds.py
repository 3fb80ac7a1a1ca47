"""Query, key and value out of one tensor, and their gradients back into it."""

import pytest
import torch

from pmlm_core.model.attention.thirds import apart, side_by_side

B, T, H, E = 2, 3, 2, 4


class Scaled(torch.autograd.Function):
    """Part i times i + 1, whose gradients go into a room that the test chooses."""

    room = staticmethod(side_by_side)

    @staticmethod
    def forward(ctx, *parts):
        ctx.parts = len(parts)
        return sum((i + 1) * part for i, part in enumerate(parts))

    @staticmethod
    def backward(ctx, gradient):
        made = Scaled.room(gradient, ctx.parts)
        for i, part in enumerate(made):
            part.copy_((i + 1) * gradient)
        Scaled.first = made[0].data_ptr()
        return tuple(made)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("beside", [True, False])
def test_gradients_are_those_of_unbind_and_not_copied_where_they_lie_side_by_side(parts, beside, monkeypatch):
    if not beside:
        monkeypatch.setattr(Scaled, "room", staticmethod(lambda like, n: [torch.empty_like(like) for _ in range(n)]))
    fused = torch.randn(B, T, parts, H, E, requires_grad=True)
    Scaled.apply(*apart(fused)).sum().backward()
    expected = torch.arange(1.0, parts + 1)[None, None, :, None, None].expand(B, T, parts, H, E)
    assert torch.equal(fused.grad, expected)
    assert (fused.grad.data_ptr() == Scaled.first) == (beside or parts == 1)


def test_parts_of_different_wholes_are_not_taken_for_one():
    fused = torch.randn(B, T, 2, H, E, requires_grad=True)
    one, two = apart(fused)
    (wrong,), (other,) = side_by_side(one, 1), side_by_side(two, 1)
    wrong.fill_(1.0)
    other.fill_(2.0)
    gradient = torch.autograd.grad([one, two], fused, [wrong, other])[0]
    assert (gradient[:, :, 0] == 1).all()
    assert (gradient[:, :, 1] == 2).all()
    swapped = side_by_side(one, 2)
    swapped[0].fill_(1.0)
    swapped[1].fill_(2.0)
    one, two = apart(fused)
    gradient = torch.autograd.grad([one, two], fused, [swapped[1], swapped[0]])[0]
    assert (gradient[:, :, 0] == 2).all()
    assert (gradient[:, :, 1] == 1).all()
