"""Dropout on a CPU: rate, scale, no pattern, and the same mask forward and backward."""

import pytest
import torch

from pmlm_core.model.dropout import draw_products, draw_seed, drop, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_rate_and_scale(p):
    torch.manual_seed(0)
    x = torch.ones(1000, 999, requires_grad=True)
    y = dropout(x, p, training=True)
    y.sum().backward()
    assert torch.equal(y, x.grad), "forward and backward drop the same values"
    assert abs((y == 0).float().mean().item() - p) < 0.003
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    assert dropout(x, p, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_masks_have_no_pattern_along_rows_or_between_draws():
    torch.manual_seed(0)
    first, second = (drop(torch.ones(512, 512), 0.5, draw_seed()) > 0 for _ in range(2))
    assert abs((first == second).float().mean().item() - 0.5) < 0.01
    assert abs((first[:, 1:] == first[:, :-1]).float().mean().item() - 0.5) < 0.01
    assert (first.float().mean(0) - 0.5).abs().max() < 0.12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_mask_is_a_function_of_its_seed_alone(dtype):
    ones = torch.ones(3, 1001, dtype=dtype)
    expected = drop(ones, 0.3, seed=7)
    assert torch.equal(expected, drop(ones, 0.3, seed=7))
    assert not torch.equal(expected, drop(ones, 0.3, seed=8))
    assert torch.equal(expected != 0, drop(torch.ones(3, 1001), 0.3, seed=7) != 0), "whatever the type"
    assert torch.equal(expected.t(), drop(ones.t().contiguous().t(), 0.3, seed=7).t()), "and the layout in memory"


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_by_products_has_its_rate_in_rows_columns_and_pairs(p):
    torch.manual_seed(0)
    x = torch.ones(2, 300, 400, requires_grad=True)
    y = dropout(x, p, True, draw_products(x, 2)[1])
    y.sum().backward()
    assert torch.equal(y, x.grad)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    gone = (y == 0).float().flatten(0, 1)
    rows, columns = gone.shape
    assert abs(gone.mean().item() - p) < 0.004
    spread = (p * (1 - p)) ** 0.5
    for axis, length in ((1, columns), (0, rows)):
        rates = gone.mean(axis)
        assert rates.std().item() == pytest.approx(spread / length**0.5, rel=0.2), "as of independent draws"
    # Of two rows, and of the corners of a rectangle.
    both = (gone[::2] * gone[1::2]).mean(1)
    assert both.mean().item() == pytest.approx(p**2, rel=0.05)
    assert both.std().item() == pytest.approx((p**2 * (1 - p**2) / columns) ** 0.5, rel=0.3)
    corners = gone[::2, ::2] * gone[1::2, ::2] * gone[::2, 1::2] * gone[1::2, 1::2]
    assert corners.mean().item() == pytest.approx(p**4, abs=4 * (p**4 / corners.numel()) ** 0.5)
