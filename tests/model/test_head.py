"""The sliced cross-entropy against torch's, and the dropout mask's rate."""

import pytest
import torch
from torch.nn import functional as F

from pmlm_core.model.dropout import dropout, keep_mask
from pmlm_core.model.head import cross_entropy_sum


@pytest.mark.parametrize("slice_rows", [3, 7, 100])
@pytest.mark.parametrize("ignored", [(), (0, 4, 9), tuple(range(10))])
def test_cross_entropy_sum_is_torchs(slice_rows, ignored):
    torch.manual_seed(0)
    values = [torch.randn(10, 6), torch.randn(13, 6), torch.randn(13)]
    labels = torch.randint(0, 13, (10,))
    labels[list(ignored)] = -100
    results = []
    for mine in (False, True):
        states, weight, bias = (x.double().requires_grad_() for x in values)
        if mine:
            loss, correct = cross_entropy_sum(states, weight, bias, labels, slice_rows)
        else:
            logits = F.linear(states, weight, bias)
            loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
            correct = (logits.argmax(-1) == labels).sum()
        (2.5 * loss).backward()
        results.append([loss.detach(), correct, states.grad, weight.grad, bias.grad])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_equal_logits_are_one_guess_not_all_of_them_right():
    """A head that tells nothing: of 13 classes each once, one is right."""
    states, weight, bias = torch.zeros(14, 6), torch.zeros(13, 6), torch.zeros(13)
    labels = torch.tensor([*range(13), -100])
    assert cross_entropy_sum(states, weight, bias, labels)[1].item() == 1


def test_cross_entropy_sum_stands_large_logits():
    weight = torch.tensor([[1000.0], [-1000.0]])
    loss, _ = cross_entropy_sum(torch.ones(1, 1), weight, torch.zeros(2), torch.tensor([1]))
    assert loss.item() == 2000.0


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


def test_keep_mask_has_no_pattern_along_rows_or_between_draws():
    torch.manual_seed(0)
    first, second = keep_mask((512, 512), 0.5), keep_mask((512, 512), 0.5)
    assert abs((first == second).float().mean().item() - 0.5) < 0.01
    assert abs((first[:, 1:] == first[:, :-1]).float().mean().item() - 0.5) < 0.01
    assert (first.float().mean(0) - 0.5).abs().max() < 0.12
