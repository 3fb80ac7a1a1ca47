"""The compiled parts' GELU against torch's."""

import torch
from torch.nn import functional as F

from pmlm_core.model.activation import gelu


def test_values_and_gradients_are_torchs():
    results = []
    for of in (gelu, F.gelu):
        x = torch.cat([torch.linspace(-9, 9, 4001), torch.tensor([0.0, -1e4, 1e4, 1e-30])]).requires_grad_()
        out = of(x)
        out.backward(torch.linspace(-1, 2, len(x)))
        results.append((out.detach(), x.grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_is_that_of_the_rounded_result():
    x = torch.linspace(-6, 6, 2001).bfloat16()
    exact = F.gelu(x.double())
    assert gelu(x).dtype == torch.bfloat16
    torch.testing.assert_close(gelu(x).double(), exact, rtol=2**-8, atol=1e-6)
