"""Kernels against the reference, in values and gradients; the relative bias against T5's."""

import math
from dataclasses import replace

import pytest
import torch
from oracles.pseudo_mask import t5_bucket

from pmlm_core.errors import ConfigError
from pmlm_core.model.attention import choice, plain, reference, sdpa
from pmlm_core.model.attention.interface import Call, attend, kernels
from pmlm_core.model.attention.layer_sums import summed_over_layers
from pmlm_core.model.attention.plan import make_plan
from pmlm_core.model.attention.relbias import RelativeBias, bucket
from pmlm_core.model.pseudo import lay_out

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


@pytest.mark.parametrize("bias", ["shared", "per row"])
def test_gradient_of_a_bias_summed_over_layers_in_one_place_is_that_of_autograd(bias):
    gradients = []
    for sum_in_one_place in (False, True):
        qkv, calls = _inputs(bias)
        biases = [call.bias for call in calls]
        if sum_in_one_place:
            read = [summed_over_layers(bias) for bias in biases]
            calls = [replace(call, bias=x, sums=sums) for call, (x, sums) in zip(calls, read, strict=True)]
        q, k, v = qkv
        for attended in (plain.attend, plain.attend, reference.attend):  # the last returns a gradient all the same
            q = attended(q, k, v, calls, 0.0)
        q.square().sum().backward()
        gradients.append([x.grad for x in (*qkv, *biases)])
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_a_backward_pass_for_other_gradients_alone_adds_nothing_to_the_next(make_model, make_batch):
    gradients = []
    for asked_before in (False, True):
        model = make_model()
        loss = model.pmlm(make_batch()["input_ids"]).last_hidden_state.sin().sum()
        if asked_before:
            torch.autograd.grad(loss, model.pmlm.embeddings.norm.bias, retain_graph=True)
        loss.backward()
        gradients.append(model.pmlm.rel_pos_bias.weight.grad)
    assert torch.equal(*gradients)


def test_a_bias_that_needs_no_gradient_is_not_summed():
    bias = torch.zeros(1, H, N, N, requires_grad=True)
    assert summed_over_layers(bias.detach())[1] is None
    with torch.no_grad():
        assert summed_over_layers(bias)[1] is None


def test_plain_dropout_keeps_the_mean():
    qkv, calls = _inputs("shared", requires_grad=False)
    expected = plain.attend(*qkv, calls, 0.0)
    torch.manual_seed(0)
    draws = torch.stack([plain.attend(*qkv, calls, 0.25) for _ in range(500)])
    assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / 500**0.5).all()


def test_attention_on_a_cpu_is_the_plain_kernel():
    qkv, calls = _inputs("shared")
    assert torch.equal(attend(*qkv, calls, 0.0), plain.attend(*qkv, calls, 0.0))
    assert choice.kernel_for(qkv[0], torch.float32, 64) == "plain"


def test_a_kernel_can_be_forced(monkeypatch):
    qkv, calls = _inputs("shared")
    for name, kernel in (("sdpa", sdpa), ("reference", reference), ("plain", plain)):
        monkeypatch.setenv(choice.VARIABLE, name)
        assert choice.kernel_for(qkv[0], torch.float64, 5) == choice.dense_kernel(qkv[0]) == name
        assert torch.equal(attend(*qkv, calls, 0.0), kernel.attend(*qkv, calls, 0.0))


def test_a_kernel_that_is_not_there_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "flash")
    with pytest.raises(ConfigError, match="'flash'; it may be auto, plain, sdpa, triton or reference"):
        choice.kernel_for(torch.zeros(1), torch.float32, 64)
    monkeypatch.setenv(choice.VARIABLE, "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="PMLM_ATTENTION=triton needs"):
        choice.kernel_for(torch.zeros(1), torch.float32, 64)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bins", [0, 8])
@pytest.mark.parametrize("given", [False, True])
def test_a_plan_in_structure_says_what_a_dense_plan_says(padded, bins, given):
    n, slots = 9, 4
    relative = RelativeBias(H, bins, 6).double() if bins else None
    if relative is not None:
        torch.nn.init.normal_(relative.weight)
    mask = torch.ones(2, n)
    if padded:
        mask[1, -3:] = 0
    positions = torch.tensor([[0, 5, 2, 3], [4, 0, 1, 0]])
    layout = lay_out(mask, torch.tensor([[1, 1, 2, 3], [1, 2, 2, 0]]))
    at = torch.tensor([[0, 2, 4, 6, 8, 10, 1, 3, 5], [11, 0, 3, 1, 2, 4, 5, 6, 7]]) if given else None
    plans = [
        make_plan(
            layout,
            padded=padded,
            relative=relative,
            reach=12,
            position_ids_BN=at,
            slot_positions_BK=positions,
            read_ae=True,
            dtype=torch.float64,
            kernel=kernel,
        )
        for kernel in ("plain", "triton")
    ]
    for one, two in zip(*(plan.full + plan.read for plan in plans), strict=True):
        assert (one.start, one.stop, one.keys) == (two.start, two.stop, two.keys)
        assert (one.rule, two.bias) == (None, None)
        made = reference.dense(two, 2)
        qkv = torch.randn(2, n + 2 * slots, 3, H, E, dtype=torch.float64).unbind(2)
        results = [reference.attend(*qkv, [call], 0.0) for call in (one, made)]
        torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def test_bins_in_order_of_distance_hold_the_same_bias():
    relative = RelativeBias(3, 8, 16).double()
    torch.nn.init.normal_(relative.weight)
    made = relative.in_order(40)
    assert made.reach > 40, "there is room for tiles that hang over"
    expected = relative.by_distance(made.reach)
    distances = torch.arange(1 - made.reach, made.reach)
    torch.testing.assert_close(made.table_HC.double() * math.log(2), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(made.weight_HM[:, made.bin_C.long()], expected.float())
    assert (made.bin_C.diff() >= 0).all()
    at_or_beyond = distances[None, :] >= made.edge_M[:, None]
    assert torch.equal(at_or_beyond, made.bin_C[None, :] >= torch.arange(8)[:, None])
    assert torch.equal(distances >= made.far, made.bin_C == 7)
    assert torch.equal(distances <= -made.far, made.bin_C == 0)
    made.weight_HM[0, 0].backward()
    assert relative.weight.grad.nonzero().tolist() == [[0, 3]], "the leftmost bin is the last of those to the left"


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
