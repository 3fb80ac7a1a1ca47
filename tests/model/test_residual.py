"""Dropout, residual and LayerNorm in one pass against torch's three operations."""

import pytest
import torch
from torch import nn

from pmlm_core.model.residual import add_and_norm


def _inputs(dtype, residual_dtype, width=37):
    torch.manual_seed(0)
    norm = nn.LayerNorm(width, eps=1e-12).to(residual_dtype)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(3, 70, width).to(dtype).requires_grad_()
    residual = torch.randn(3, 70, width).to(residual_dtype).requires_grad_()
    return x, residual, norm


@pytest.mark.parametrize("threads", [1, 3])
def test_values_and_gradients_are_torchs(threads):
    results = []
    torch.set_num_threads(threads)
    for ours in (True, False):
        x, residual, norm = _inputs(torch.float64, torch.float64, width=400)
        out = add_and_norm(x, residual, norm, 0.1, training=False) if ours else norm(x + residual)
        (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
        results.append([out.detach(), x.grad, residual.grad, norm.weight.grad, norm.bias.grad])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_mixed_precision_is_as_good_as_torchs():
    x, residual, norm = _inputs(torch.bfloat16, torch.float32)
    out = add_and_norm(x, residual, norm, 0.0, training=True)
    exact = nn.functional.layer_norm(x.double() + residual.double(), (37,), norm.weight.double(), norm.bias.double())
    assert out.dtype is torch.float32
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    wanted = torch.autograd.grad(exact, (x, residual, norm.weight, norm.bias), gradient.double())
    for parameter, expected in zip((x, residual, norm.weight, norm.bias), wanted, strict=True):
        assert parameter.grad.dtype is parameter.dtype
        error = (parameter.grad.double() - expected.double()).norm() / expected.double().norm()
        assert error < 5e-3, "the normalized sum is kept in bf16"


def test_dropout_is_that_of_the_same_rate_and_its_gradient_that_of_its_own_mask():
    x, residual, norm = _inputs(torch.float64, torch.float64)
    torch.manual_seed(3)
    out = add_and_norm(x, residual, norm, 0.3, training=True)
    # Without a residual, what was dropped is where the sum before LayerNorm is zero.
    torch.manual_seed(3)
    alone = nn.LayerNorm(37, elementwise_affine=False, eps=1e-12).double()
    alone.weight, alone.bias = nn.Parameter(torch.ones(37).double()), nn.Parameter(torch.zeros(37).double())
    made = add_and_norm(torch.ones_like(x), torch.zeros_like(x), alone, 0.3, training=True)
    kept = (made > 0).double()
    assert 1 - kept.mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(out, norm(residual + x * kept / 0.7), rtol=1e-10, atol=1e-10)
    out.square().sum().backward()
    again = _inputs(torch.float64, torch.float64)
    again[2](again[1] + again[0] * kept / 0.7).square().sum().backward()
    torch.testing.assert_close(x.grad, again[0].grad, rtol=1e-9, atol=1e-9)


def test_a_step_repeats_bit_by_bit_whatever_thread_ends_first():
    torch.set_num_threads(5)
    made = []
    for _ in range(20):
        x, residual, norm = _inputs(torch.float32, torch.float32, width=600)
        add_and_norm(x, residual, norm, 0.0, training=True).square().sum().backward()
        made.append(norm.weight.grad)
    assert all(torch.equal(each, made[0]) for each in made)


def test_a_residual_of_another_shape_is_refused():
    x, residual, norm = _inputs(torch.float32, torch.float32)
    with pytest.raises(ValueError, match="they are added"):
        add_and_norm(x, residual[:1], norm, 0.0, training=True)


def test_other_devices_take_torchs_way(monkeypatch):
    monkeypatch.setattr("pmlm_core.model.residual.eager_on_cpu", lambda _: False)
    x, residual, norm = _inputs(torch.float32, torch.float32)
    assert torch.equal(add_and_norm(x, residual, norm, 0.1, training=False), norm(x + residual))
