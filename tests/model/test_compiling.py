"""Parts of a model in compiled form: the same numbers, one form for all layers. The code generator is torch's business:
what torch captures runs here operation by operation."""

import pytest
import torch
from torch._dynamo.utils import counters

from pmlm_core.model import compiling
from pmlm_core.model.compiling import compile_parts
from pmlm_core.training.together import recompute_layers


@pytest.fixture(autouse=True)
def captured_only(monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    how = {"backend": "aot_eager", "dynamic": False, "fullgraph": True}
    monkeypatch.setattr(compiling, "_compiled", lambda work: torch.compile(work, **how))
    yield
    torch._dynamo.reset()


def _loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("recomputed", [False, True])
def test_losses_and_gradients_are_the_same(make_model, make_batch, recomputed):
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model, batch = make_model(**dropouts).train(), make_batch()
    for layer in model.pmlm.layers:
        layer.activation = torch.tanh  # in float64; the compiled GELU is of float32
    expected = _loss_and_gradients(model, batch)
    if recomputed:
        recompute_layers(model)
    compile_parts(model)
    for got, want in zip(_loss_and_gradients(model, batch), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert counters["stats"]["unique_graphs"] > 0


def test_a_deep_model_compiles_no_more_than_a_shallow_one(make_model, make_batch):
    made = []
    for layers in (2, 5):
        torch._dynamo.reset()
        counters.clear()
        model = make_model(num_hidden_layers=layers).train()
        compile_parts(model)
        model(**make_batch()).loss.backward()
        made.append(counters["stats"]["unique_graphs"])
    assert made[0] == made[1] == 6, "embeddings; a full layer and the last one, before and after attention"


def test_evaluation_is_not_compiled(make_model, make_batch):
    model = make_model().eval()
    compile_parts(model)
    model(**make_batch())
    assert not counters["stats"]


def test_dropout_in_compiled_parts_follows_the_seed(make_model, make_batch):
    model, batch = make_model(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0).train(), make_batch()
    compile_parts(model)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(**batch).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_a_machine_without_a_compiler_is_told_once_and_goes_without(monkeypatch):
    def refuses(*_, **__):
        raise RuntimeError("Found no C compiler\nand more")

    compiling.can_compile.cache_clear()
    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuses)
    with pytest.warns(UserWarning, match=r"torch.compile fails on cpu \(RuntimeError: Found no C compiler\)"):
        assert not compiling.can_compile(torch.device("cpu"))
    assert not compiling.can_compile(torch.device("cpu"))
    compiling.can_compile.cache_clear()
