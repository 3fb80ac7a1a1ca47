"""Products with gradients of their own, against `F.linear`."""

import pytest
import torch
from torch.nn import functional as F

from pmlm_core.model.product import product, product_and_input

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [((2, 5, 8), 16), ((3, 8), 24), ((1, 1, 8), 8)]


def _inputs(shape, outs, dtype=torch.float32, biased=True):
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(size, generator=draw) for size in (shape, (outs, shape[-1]), (outs,))]
    leaves = [x.to(DEVICE, dtype).requires_grad_() for x in made]
    return leaves if biased else [*leaves[:2], None]


@pytest.mark.parametrize(("shape", "outs"), SHAPES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("twice", [True, False])
def test_values_and_gradients_are_those_of_a_linear_layer(shape, outs, biased, twice):
    results = []
    for ours in (True, False):
        x, weight, bias = _inputs(shape, outs, torch.float64, biased)
        if not ours:
            made, again = F.linear(x, weight, bias), x
        elif twice:
            made, again = product_and_input(x, weight, bias)
        else:
            made, again = product(x, weight, bias), x
        (made.sin().sum() + (again.cos().sum() if twice else 0.0)).backward()
        results.append([made, x.grad, weight.grad, *([bias.grad] if biased else [])])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_only_the_other_use_may_have_a_gradient():
    x, weight, _ = _inputs((2, 8), 4)
    _, again = product_and_input(x, weight)
    again.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert weight.grad is None


def test_what_needs_no_gradient_gets_none():
    x, weight, bias = _inputs((2, 8), 4)
    product(x, weight.detach(), bias.detach()).sum().backward()
    assert x.grad is not None
    x, weight, bias = _inputs((2, 8), 4)
    product(x.detach(), weight, bias).sum().backward()
    assert weight.grad is not None
    assert bias.grad.tolist() == [2.0] * 4


def test_under_autocast_the_weight_s_gradient_is_not_rounded():
    """Where the device can; it has the weight's type everywhere, and agrees with that of exact products."""
    x, weight, bias = _inputs((64, 8), 16)
    with torch.autocast(DEVICE, torch.bfloat16):
        made, again = product_and_input(x, weight, bias)
        assert made.dtype == torch.bfloat16
        made.backward(torch.ones_like(made), retain_graph=True)
    assert weight.grad.dtype == bias.grad.dtype == x.grad.dtype == again.dtype == torch.float32
    exact = x.detach().to(torch.bfloat16).double().sum(0)
    room = 1e-6 if DEVICE == "cuda" else 2**-8
    torch.testing.assert_close(weight.grad[0].double(), exact, rtol=room, atol=1e-6)
    assert torch.equal(bias.grad, torch.full_like(bias, 64.0))


def test_the_input_comes_back_as_a_view_of_itself():
    x, weight, _ = _inputs((2, 8), 4)
    _, again = product_and_input(x, weight)
    assert again.data_ptr() == x.data_ptr()
