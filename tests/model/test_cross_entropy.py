"""The sliced cross-entropy against torch's."""

import pytest
import torch
from torch.nn import functional as F

from pmlm_core.model import cross_entropy
from pmlm_core.model.cross_entropy import cross_entropy_sum, cross_entropy_sums


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


def test_a_word_that_cannot_be_costs_the_others_nothing():
    torch.manual_seed(0)
    states, weight, bias = (torch.randn(size).requires_grad_() for size in ((5, 6), (13, 6), (13,)))
    with torch.no_grad():
        bias[4] = -torch.inf
    labels = torch.tensor([1, 0, 12, 7, -100])
    loss, _ = cross_entropy_sum(states, weight, bias, labels)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(states, weight, bias), labels, reduction="sum"))
    loss.backward()
    assert states.grad.isfinite().all()


def test_a_label_outside_the_vocabulary_is_refused():
    with pytest.raises(IndexError, match="label 13 is not in the vocabulary of 13"):
        cross_entropy_sum(torch.zeros(2, 6), torch.zeros(13, 6), torch.zeros(13), torch.tensor([1, 13]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bf16_products_give_torchs_loss_of_the_same_logits(smoothing):
    torch.manual_seed(0)
    states, weight, bias = torch.randn(300, 32), torch.randn(1001, 32), torch.randn(1001)
    labels = torch.randint(0, 1001, (300,))
    with torch.autocast("cpu", torch.bfloat16):
        loss, correct = cross_entropy_sum(states, weight, bias, labels, 128, smoothing)
        logits = F.linear(states, weight, bias)
    expected = F.cross_entropy(logits.double(), labels, reduction="sum", label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert correct == (logits.argmax(-1) == labels).sum()


@pytest.mark.parametrize("weights", [(2.0, 2.0), (1.0, 3.0), (0.0, 1.0)])
def test_parts_have_the_losses_and_gradients_of_each_alone(weights):
    torch.manual_seed(0)
    values = [torch.randn(8, 6), torch.randn(13, 6), torch.randn(13)]
    labels = torch.tensor([3, 4, -100, 5, 3, 4, -100, 12])
    results = []
    for together in (True, False):
        states, weight, bias = (x.double().requires_grad_() for x in values)
        if together:
            losses, correct = cross_entropy_sums(states, weight, bias, labels, 2, slice_rows=3)
        else:
            each = [cross_entropy_sum(states[at : at + 4], weight, bias, labels[at : at + 4]) for at in (0, 4)]
            losses, correct = (torch.stack(x) for x in zip(*each, strict=True))
        (losses * torch.tensor(weights)).sum().backward()
        results.append([losses.detach(), correct, states.grad, weight.grad, bias.grad])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_a_step_repeats_bit_by_bit_whatever_thread_ends_first():
    torch.manual_seed(0)
    values, labels = [torch.randn(60, 32), torch.randn(2000, 32), torch.randn(2000)], torch.randint(0, 2000, (60,))
    torch.set_num_threads(5)
    made = []
    for _ in range(20):
        states, weight, bias = (x.clone().requires_grad_() for x in values)
        cross_entropy_sum(states, weight, bias, labels)[0].backward()
        made.append(bias.grad)
    assert all(torch.equal(each, made[0]) for each in made)


def test_labels_of_another_number_are_refused():
    with pytest.raises(IndexError, match="2 rows of logits have 1 labels"):
        cross_entropy_sum(torch.zeros(2, 6), torch.zeros(13, 6), torch.zeros(13), torch.tensor([1]))


def test_a_second_backward_is_refused_and_not_wrong():
    states = torch.randn(4, 6, requires_grad=True)
    loss, _ = cross_entropy_sum(states, torch.randn(13, 6), torch.zeros(13), torch.tensor([1, 2, 3, 4]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="made once"):
        loss.backward()


def test_rows_of_zeros_that_make_products_fast_change_nothing(monkeypatch):
    """As on a GPU: 13 words are multiplied as 64."""
    torch.manual_seed(0)
    values = [torch.randn(10, 6), torch.randn(13, 6), torch.randn(13)]
    labels = torch.randint(0, 13, (10,))
    labels[4] = -100
    results = []
    for padded in (False, True):
        monkeypatch.setattr(cross_entropy, "eager_on_cpu", lambda x, padded=padded: not padded)
        states, weight, bias = (x.double().requires_grad_() for x in values)
        loss, correct = cross_entropy_sum(states, weight, bias, labels, 4, 0.1)
        (2.5 * loss).backward()
        results.append([loss.detach(), correct, states.grad, weight.grad, bias.grad])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
