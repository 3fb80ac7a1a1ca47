"""Bias, dropout, residual and LayerNorm by a kernel, against torch's: in Triton's interpreter or on a GPU."""

from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch.nn import functional as F

from pmlm_core.errors import ConfigError
from pmlm_core.model import fused, layer
from pmlm_core.model.attention import choice
from pmlm_core.model.compiling import compile_parts
from pmlm_core.model.dropout import draw_products, drop_by_products
from pmlm_core.training.together import recompute_layers

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and Version(version("triton")) < Version("3.7") and Version(np.__version__) >= Version("2.4"):
    pytest.skip("the interpreter of Triton before 3.7 does not know numpy 2.4", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    from pmlm_core.model import activation_tiled, residual_tiled

HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
ROOM = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float16: {"rtol": 5e-3, "atol": 2e-2}}
ROOM[torch.bfloat16] = {"rtol": 3e-2, "atol": 2e-1}
NAMES = ("x", "bias", "residual", "weight", "shift")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The interpreter goes on asking; and some programs have more rows than others."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    few = {"forward": 3, "backward": 2}
    monkeypatch.setattr(residual_tiled, "most_programs", lambda x, width, kernel: few[kernel])


def _inputs(shape, dtype, residual_dtype=None):
    torch.manual_seed(0)
    width = shape[-1]
    made = {name: torch.randn(width) for name in NAMES} | {"x": torch.randn(shape), "residual": torch.randn(shape)}
    dtypes = {"x": dtype, "residual": residual_dtype or dtype}
    return {name: made[name].to(DEVICE, dtypes.get(name, torch.float32)).requires_grad_() for name in NAMES}


def _of_torch(inputs, p, random, gradients):
    """Output and gradients in float64."""
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    x = exact["x"] + exact["bias"]
    total = exact["residual"] + (drop_by_products(x, p, random) if p else x)
    out = F.layer_norm(total, total.shape[-1:], exact["weight"], exact["shift"], 1e-5)
    out.backward(sum(x.double() for x in gradients))
    return [out, *(exact[name].grad for name in NAMES)]


def _ours(inputs, p, random, dtype):
    return residual_tiled.add_and_norm(*(inputs[name] for name in NAMES), 1e-5, p, random, dtype)


@pytest.mark.parametrize("uses", ["both", "first", "second"])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(
    ("shape", "dtype", "residual_dtype"),
    [
        ((2, 5, 48), torch.float32, None),
        ((1, 1, 96), torch.float32, None),
        ((3, 3, 64), HALF, None),
        ((2, 3, 37), HALF, torch.float32),
    ],
)
def test_values_and_gradients_are_torchs(shape, dtype, residual_dtype, p, uses):
    inputs = _inputs(shape, dtype, residual_dtype)
    random = draw_products(inputs["x"], 1)[0] if p else None
    outputs = _ours(inputs, p, random, dtype)
    assert outputs[0].data_ptr() == outputs[1].data_ptr()
    assert torch.equal(*outputs)
    chosen = {"both": outputs, "first": outputs[:1], "second": outputs[1:]}[uses]
    gradients = [torch.randn(shape).to(DEVICE, dtype) for _ in chosen]
    torch.autograd.backward(chosen, gradients)
    expected = _of_torch(inputs, p, random, gradients)
    for got, wanted in zip([outputs[0], *(inputs[name].grad for name in NAMES)], expected, strict=True):
        torch.testing.assert_close(got.double(), wanted, **ROOM[dtype])
    for x in inputs.values():
        assert x.grad.dtype is x.dtype
    assert inputs["x"].grad.data_ptr() != inputs["residual"].grad.data_ptr()
    if p:
        assert torch.equal(inputs["x"].grad == 0, expected[1] == 0), "another mask"


def test_inputs_may_lie_in_memory_as_they_will():
    inputs = _inputs((2, 6, 40), torch.float32)
    expected = _ours(inputs, 0.0, None, torch.float32)[0]
    gradient = torch.randn(6, 2, 40, device=DEVICE).transpose(0, 1)
    expected.backward(gradient.contiguous())
    other = {
        name: (x.detach().transpose(0, 1).contiguous().transpose(0, 1) if x.dim() == 3 else _every_second(x.detach()))
        for name, x in inputs.items()
    }
    assert not any(x.is_contiguous() for x in other.values())
    got = _ours({name: x.requires_grad_() for name, x in other.items()}, 0.0, None, torch.float32)[0]
    got.backward(gradient)
    assert torch.equal(got, expected)
    for name in NAMES:
        assert torch.equal(other[name].grad, inputs[name].grad)


def _every_second(x):
    return torch.stack([x, x], 1).flatten()[::2]


def test_a_step_can_be_repeated_bit_by_bit():
    results = []
    for _ in range(2):
        inputs = _inputs((2, 7, 48), HALF)
        torch.manual_seed(1)
        one, two = _ours(inputs, 0.2, draw_products(inputs["x"], 1)[0], HALF)
        (one.float().square().sum() + two.float().cos().sum()).backward()
        results.append([one, *(x.grad for x in inputs.values())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_needs_no_gradient_gets_none_and_nothing_is_kept_without_one():
    inputs = _inputs((2, 3, 48), torch.float32)
    inputs["bias"].requires_grad_(False)
    inputs["weight"].requires_grad_(False)
    _ours(inputs, 0.0, None, torch.float32)[0].sum().backward()
    assert inputs["bias"].grad is inputs["weight"].grad is None
    assert inputs["x"].grad is not None
    with torch.no_grad():
        plain = _ours(inputs, 0.0, None, torch.float32)[0]
    assert not plain.requires_grad
    assert torch.equal(plain, _ours(inputs, 0.0, None, torch.float32)[0])


def test_no_rows_are_no_work():
    inputs = _inputs((0, 3, 48), torch.float32)
    out, _ = _ours(inputs, 0.0, None, torch.float32)
    out.sum().backward()
    assert out.shape == inputs["x"].grad.shape == (0, 3, 48)
    assert not inputs["weight"].grad.any()


def test_a_residual_of_another_shape_is_refused():
    inputs = _inputs((2, 3, 48), torch.float32)
    inputs["residual"] = inputs["residual"][:1]
    with pytest.raises(ValueError, match="they are added"):
        _ours(inputs, 0.0, None, torch.float32)


def _step(model, batch):
    torch.manual_seed(5)
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize(
    ("act", "form", "p"),
    [("gelu", "", 0.0), ("gelu", "", 0.2), ("gelu", "recomputed", 0.2), ("gelu", "compiled", 0.2), ("relu", "", 0.2)],
)
def test_a_whole_step_is_that_of_torchs_operations(act, form, p, make_model, make_batch, monkeypatch):
    """With dropout torch is given the numbers that the kernels have."""
    monkeypatch.setenv(choice.VARIABLE, "sdpa")
    how = {"num_hidden_layers": 2, "initializer_range": 0.1, "hidden_act": act, "attention_probs_dropout_prob": 0.0}
    model = make_model(hidden_dropout_prob=p, **how).float().to(DEVICE).train()
    model.pmlm.embeddings.dropout_p = 0.0  # is torch's own
    batch = {name: x.to(DEVICE) for name, x in make_batch(lengths=(17,)).items()}
    finish = layer._finish

    def with_numbers(of, mixed, queries, _):
        return finish(of, mixed, queries, draw_products(queries, 2) if p else None)

    with monkeypatch.context() as patch:
        patch.setenv(fused.VARIABLE, "torch")
        patch.setattr(layer, "_finish", with_numbers)
        patch.setattr("pmlm_core.model.residual.eager_on_cpu", lambda _: False)
        expected = _step(model, batch)
    if form == "recomputed":
        recompute_layers(model)
    elif form == "compiled":
        monkeypatch.setattr("pmlm_core.model.compiling._compiled", lambda work: work)
        compile_parts(model)
    monkeypatch.setenv(fused.VARIABLE, "triton")
    monkeypatch.setattr(layer, "_finish", None)
    for ours, theirs in zip(_step(model, batch), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_trial_in_a_layer_that_is_recomputed_leaves_it_alone(make_model, make_batch, monkeypatch):
    """On a GPU the first layer asks for it, and what the trial computes is none of the layer's own."""
    monkeypatch.setenv(choice.VARIABLE, "sdpa")
    monkeypatch.setenv(fused.VARIABLE, "auto")
    tried = []

    def passes(*how):
        tried.append(fused._worst_error(*how))
        return tried[-1] < 1e-4

    def asked(x, dtype, width, wide):
        return tried[0] < 1e-4 if tried else passes(x.device, dtype, width, wide)

    model = make_model(num_hidden_layers=2).float().to(DEVICE).train()
    batch = {name: x.to(DEVICE) for name, x in make_batch(lengths=(17,)).items()}
    monkeypatch.setattr(layer, "fuses", asked)
    expected = _step(model, batch)
    del tried[:]
    recompute_layers(model)
    assert all(torch.equal(mine, its) for mine, its in zip(_step(model, batch), expected, strict=True))
    assert len(tried) == 1


class Adapted(torch.nn.Module):
    """A linear layer with something learned beside it, as adapters have it."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.beside = linear, torch.nn.Linear(linear.in_features, linear.out_features)

    weight, bias = property(lambda self: self.linear.weight), property(lambda self: self.linear.bias)

    def forward(self, x):
        return self.linear(x) + self.beside(x)


@pytest.mark.parametrize("how", ["another module", "a hook"])
def test_modules_that_were_changed_are_called(how, make_model, make_batch, monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "sdpa")
    monkeypatch.setenv(fused.VARIABLE, "triton")
    model = make_model(num_hidden_layers=2).float().to(DEVICE).train()
    first, second = model.pmlm.layers
    called = []
    if how == "another module":
        first.output = Adapted(first.output).to(DEVICE)
    else:
        first.output.register_forward_hook(lambda *_: called.append(1))
    assert not first._fused(torch.zeros(1, device=DEVICE))
    assert second._fused(torch.zeros(1, device=DEVICE))
    model(**{name: x.to(DEVICE) for name, x in make_batch(lengths=(17,)).items()}).loss.backward()
    assert called or first.output.beside.weight.grad.abs().sum() > 0


def test_the_trial_passes_here_and_a_kernel_that_fails_it_is_not_used(monkeypatch):
    device = torch.device(DEVICE)
    how = torch.float32, 48, 96
    with torch.inference_mode():
        assert fused._worst_error(device, *how) < 1e-5
        assert fused._worst_error(device, HALF, 48, 96) < fused._ROOM[HALF] / 2
    assert fused._passes.__wrapped__(device, *how)

    def breaks(*_):
        raise RuntimeError("no such instruction\nand more")

    monkeypatch.setattr(fused, "_worst_error", lambda *_: 0.5)
    with pytest.warns(UserWarning, match="are off by 50.0% on .* torch's own operations are taken instead"):
        assert not fused._passes.__wrapped__(device, *how)
    monkeypatch.setattr(fused, "_worst_error", breaks)
    with pytest.warns(UserWarning, match=r"failed \(RuntimeError: no such instruction\) on"):
        assert not fused._passes.__wrapped__(device, *how)


def test_a_wrong_kernel_is_found_out(monkeypatch):
    right = activation_tiled.bias_gelu
    monkeypatch.setattr(activation_tiled, "bias_gelu", lambda x, bias: right(x, bias * 1.1))
    assert fused._worst_error(torch.device(DEVICE), torch.float32, 48, 96) > 1e-2


def test_the_variable_decides_and_other_types_are_refused_in_a_sentence(monkeypatch):
    x = torch.zeros(1, device=DEVICE)
    monkeypatch.setenv(fused.VARIABLE, "triton")
    assert fused.fuses(x, torch.float32, 48, 96)
    with pytest.raises(ConfigError, match="PMLM_LAYER=triton has no kernel for states of size 48"):
        fused.fuses(x, torch.float64, 48, 96)
    monkeypatch.setenv(fused.VARIABLE, "torch")
    assert not fused.fuses(x, torch.float32, 48, 96)
    monkeypatch.setenv(fused.VARIABLE, "auto")
    assert fused.fuses(x, torch.float32, 48, 96) is (DEVICE == "cuda")
    assert not fused.fuses(x, torch.float64, 48, 96)
    monkeypatch.setenv(fused.VARIABLE, "fast")
    with pytest.raises(ConfigError, match="PMLM_LAYER is 'fast'; it may be auto, torch or triton"):
        fused.fuses(x, torch.float32, 48, 96)
    monkeypatch.setenv(fused.VARIABLE, "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="PMLM_LAYER=triton needs a GPU, and the model is on cpu"):
        fused.fuses(torch.zeros(1), torch.float32, 48, 96)
