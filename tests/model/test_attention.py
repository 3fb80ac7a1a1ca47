"""Kernels against the reference, in values and gradients; the relative bias against T5's."""

import pytest
import torch
from oracles.pseudo_mask import t5_bucket

from pmlm_core.model.attention import plain, reference
from pmlm_core.model.attention.interface import Call, attend, kernels
from pmlm_core.model.attention.relbias import RelativeBias, bucket

B, N, A, H, E = 3, 7, 4, 2, 5


def _inputs(bias: str, requires_grad: bool = True) -> tuple[list[torch.Tensor], list[Call]]:
    torch.manual_seed(1)
    fused = torch.randn(B, N + A, 3, H, E, dtype=torch.float64)
    q, k, v = (x.detach().requires_grad_(requires_grad) for x in fused.unbind(2))
    if bias == "none":
        biases: list[torch.Tensor | None] = [None, None]
    elif bias == "mask only":
        lowest = torch.finfo(torch.float64).min
        biases = [None, torch.zeros(B, 1, A, N + A, dtype=torch.float64)]
        biases[1].masked_fill_(torch.rand(biases[1].shape) < 0.3, lowest)
    else:
        rows = 1 if bias == "shared" else B
        biases = [
            torch.randn(rows, H, N, N, dtype=torch.float64, requires_grad=requires_grad),
            torch.randn(B, H, A, N + A, dtype=torch.float64, requires_grad=requires_grad),
        ]
    return [q, k, v], [Call(0, N, N, biases[0]), Call(N, N + A, N + A, biases[1])]


@pytest.mark.parametrize("bias", ["none", "mask only", "shared", "per row"])
@pytest.mark.parametrize("name", ["plain", "sdpa"])
def test_kernel_equals_reference(name, bias):
    results = []
    for kernel in (reference.attend, kernels()[name]):
        qkv, calls = _inputs(bias)
        out = kernel(*qkv, calls, 0.0)
        (out * torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos()).sum().backward()
        learned = [c.bias for c in calls if c.bias is not None and c.bias.requires_grad]
        results.append([out, *(x.grad for x in qkv + learned)])
    assert len(results[0]) == (6 if bias in ("shared", "per row") else 4)
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", ["A then B", "B then A", "A alone"])
def test_plain_sums_key_gradients_whatever_the_order_of_calls(order):
    results = []
    for kernel in (reference.attend, plain.attend):
        qkv, (a, b) = _inputs("per row")
        if order == "B then A":
            calls = [Call(0, A, N + A, b.bias), Call(A, A + N, N, a.bias)]
        elif order == "A alone":
            calls = [a]
            qkv[0] = qkv[0].detach()[:, :N].requires_grad_()
        else:
            calls = [a, b]
        out = kernel(*qkv, calls, 0.0)
        out.square().sum().backward()
        results.append([out, *(x.grad for x in qkv)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_plain_gradient_with_dropout_is_that_of_its_own_forward():
    qkv, calls = _inputs("shared")
    biases = [c.bias for c in calls]

    def run(q, k, v, *biases):
        torch.manual_seed(5)
        return plain.attend(
            q, k, v, [Call(c.start, c.stop, c.keys, x) for c, x in zip(calls, biases, strict=True)], 0.4
        )

    assert torch.autograd.gradcheck(run, (*qkv, *biases), fast_mode=True)
    assert not torch.allclose(run(*qkv, *biases), plain.attend(*qkv, calls, 0.0))


def test_plain_dropout_keeps_the_mean():
    qkv, calls = _inputs("shared", requires_grad=False)
    expected = plain.attend(*qkv, calls, 0.0)
    torch.manual_seed(0)
    draws = torch.stack([plain.attend(*qkv, calls, 0.25) for _ in range(500)])
    assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / 500**0.5).all()


def test_attention_on_a_cpu_is_the_plain_kernel():
    qkv, calls = _inputs("shared")
    assert torch.equal(attend(*qkv, calls, 0.0), plain.attend(*qkv, calls, 0.0))


@pytest.mark.parametrize(("bins", "max_distance"), [(32, 128), (32, 64), (16, 128), (8, 16)])
def test_buckets_are_those_of_t5(bins, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(-700, 701)
    expected = T5Attention._relative_position_bucket(
        distances, bidirectional=True, num_buckets=bins, max_distance=max_distance
    )
    assert torch.equal(bucket(distances, bins, max_distance), expected)
    # The oracle's float64 logarithm may fall on the other side of an edge, and only there.
    plain_buckets = torch.tensor([t5_bucket(d, bins, max_distance) for d in distances.tolist()])
    assert (plain_buckets != expected).sum() <= 4


def test_square_holds_the_bucket_of_key_minus_query():
    bias = RelativeBias(3, 8, 16)
    with torch.no_grad():
        bias.weight.copy_(torch.arange(24).view(3, 8))
    square = bias.square(40)
    for h, i, j in [(0, 0, 0), (1, 3, 9), (2, 39, 0), (2, 0, 39), (1, 20, 18)]:
        assert square[h, i, j].item() == h * 8 + t5_bucket(j - i, 8, 16)


@pytest.mark.parametrize("lengths", [(24, 24), (24, 17, 24)])
def test_bucket_gradients_sum_to_zero_per_head(lengths, make_model, make_batch):
    """A number added to a whole head's bias changes nothing: softmax takes it away."""
    model = make_model()
    model(**make_batch(lengths=lengths)).loss.backward()
    gradient = model.pmlm.rel_pos_bias.weight.grad
    assert (gradient.sum(1).abs() < 1e-13 * gradient.abs().sum(1) + 1e-15).all()
    assert (gradient.abs().sum(1) > 1e-6).all()
