"""Bias and GELU by a kernel, against torch's: in Triton's interpreter or on a GPU."""

from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch.nn import functional as F

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and Version(version("triton")) < Version("3.7") and Version(np.__version__) >= Version("2.4"):
    pytest.skip("the interpreter of Triton before 3.7 does not know numpy 2.4", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    from pmlm_core.model import activation_tiled

HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that small inputs have several tiles, the last of them not full; and the interpreter goes on asking."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(activation_tiled, "processors", lambda _: 1)
    monkeypatch.setattr(activation_tiled, "COLUMNS", 64)
    monkeypatch.setattr(activation_tiled, "TILE", 128)


def _inputs(shape, dtype):
    torch.manual_seed(0)
    x, bias = 3 * torch.randn(shape), torch.randn(shape[-1])
    return x.to(DEVICE, dtype).requires_grad_(), bias.to(DEVICE).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("shape", [(2, 35, 96), (1, 1, 48), (3, 5, 200), (7, 64)])
def test_values_and_gradients_are_torchs(shape, dtype):
    x, bias = _inputs(shape, dtype)
    out = activation_tiled.bias_gelu(x, bias)
    gradient = torch.randn(shape).to(DEVICE, dtype)
    out.backward(gradient)
    exact = [each.detach().double().requires_grad_() for each in (x, bias)]
    expected = F.gelu(exact[0] + exact[1])
    expected.backward(gradient.double())
    room = {torch.float32: 2e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    assert out.dtype is x.grad.dtype is dtype
    assert bias.grad.dtype is torch.float32
    for got, wanted in zip((out, x.grad), (expected, exact[0].grad), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=room, atol=room)
    torch.testing.assert_close(bias.grad.double(), exact[1].grad, rtol=room, atol=10 * room)


def test_far_from_zero_it_is_the_identity_or_zero():
    x = torch.tensor([[-1e4, -30.0, -8.0, 0.0, 8.0, 30.0, 1e4]], device=DEVICE).requires_grad_()
    out = activation_tiled.bias_gelu(x, torch.zeros(7, device=DEVICE))
    out.sum().backward()
    torch.testing.assert_close(out.detach(), x.detach().clamp(min=0), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.grad, torch.tensor([[0, 0, 0, 0.5, 1, 1, 1]], device=DEVICE), atol=1e-6, rtol=0)


def test_inputs_may_lie_in_memory_as_they_will():
    x, bias = _inputs((6, 2, 40), torch.float32)
    gradient = torch.randn(40, 2, 6, device=DEVICE).permute(2, 1, 0)
    out = activation_tiled.bias_gelu(x, bias)
    out.backward(gradient.contiguous())
    other = x.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert not other.is_contiguous()
    again = activation_tiled.bias_gelu(other, bias)
    again.backward(gradient)
    assert torch.equal(again, out)
    assert torch.equal(other.grad, x.grad)


def test_a_step_can_be_repeated_bit_by_bit():
    results = []
    for _ in range(2):
        x, bias = _inputs((3, 7, 96), HALF)
        activation_tiled.bias_gelu(x, bias).float().square().sum().backward()
        results.append([x.grad, bias.grad])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_no_rows_are_no_work_and_a_bias_may_be_fixed():
    x, bias = _inputs((0, 48), torch.float32)
    activation_tiled.bias_gelu(x, bias).sum().backward()
    assert x.grad.shape == (0, 48)
    assert not bias.grad.any()
    x, bias = _inputs((3, 48), torch.float32)
    activation_tiled.bias_gelu(x, bias.detach()).sum().backward()
    assert x.grad is not None
