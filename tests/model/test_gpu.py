"""What only a GPU can show: compiled parts and CUDA graphs against the same step without them, and real types."""

import pytest
import torch
from generation_makers import SOURCES, pad, small_model
from model_makers import unpadded_batch
from torch.nn import functional as F

from pmlm_core.errors import NotFinite
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.compiling import compile_parts
from pmlm_core.model.cross_entropy import cross_entropy_sum
from pmlm_core.model.objectives import Objective
from pmlm_core.training.graphs import record
from pmlm_core.training.optimizer import build_adamw
from pmlm_core.training.pretraining import count_predictions, pretraining_task
from pmlm_core.training.step import Precision, StepResult, train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE = torch.device("cuda")
BF16 = Precision(DEVICE, "bf16")
VOCAB = 333  # no multiple of 8


class Trial:
    """A small model and what trains it."""

    def __init__(self, form: str = "", dropout: float = 0.0, rows: int = 4) -> None:
        config = PmlmConfig(
            vocab_size=VOCAB,
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=256,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        torch.manual_seed(0)
        self.model = PmlmForPreTraining(config).to(DEVICE).train()
        self.batches = [self._batch(rows, seed) for seed in range(2)]
        self.optimizer = build_adamw(self.model, learning_rate=1e-3, betas=(0.9, 0.98), epsilon=1e-6, weight_decay=0.01)
        if "compiled" in form:
            compile_parts(self.model)
        if "graphs" in form:
            record(self.model, self.batches[0], BF16)
        self.form = form

    def _batch(self, rows: int, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return {name: tensor.to(DEVICE) for name, tensor in unpadded_batch(rows, 96, 16, VOCAB).items()}

    def step(self, number: int, seed: int = 0, micro_batches: int = 1) -> StepResult:
        chosen = list(enumerate(self.batches[:micro_batches]))
        return train_step(
            self.model,
            self.optimizer,
            chosen,
            pretraining_task(Objective("AE+PAR")),
            step=number,
            seed=seed,
            precision=BF16,
            max_grad_norm=1.0,
            counted=sum(count_predictions(batch) for _, batch in chosen),
            keep_gradients="graphs" in self.form,
        )


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("form", ["compiled", "graphs", "compiled, graphs"])
def test_a_fast_form_trains_as_the_plain_one(form, micro_batches):
    plain, fast = Trial(), Trial(form)
    for number in range(4):
        results = [trial.step(number, micro_batches=micro_batches) for trial in (plain, fast)]
        losses, norms = zip(*((r.figures["loss"] / r.count, r.gradient_norm) for r in results), strict=True)
        assert losses[1] == pytest.approx(losses[0], rel=2e-3)
        assert norms[1] == pytest.approx(norms[0], rel=2e-2)
        assert results[0].figures["par_accuracy"] == pytest.approx(results[1].figures["par_accuracy"], abs=2)


@pytest.mark.parametrize("form", ["", "compiled", "compiled, graphs"])
def test_dropout_follows_the_seed_of_the_step(form):
    losses = [Trial(form, dropout=0.3).step(0, seed).figures["loss"] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    trial = Trial(form, dropout=0.3)
    trial.model.requires_grad_(True)
    again = [trial.step(number, seed=1).figures["loss"] for number in (0, 1)]
    assert again[0] == losses[0]
    assert again[1] != again[0]


def test_other_batches_and_evaluation_go_without_the_graph():
    plain, fast = Trial(), Trial("graphs")
    for trial in (plain, fast):
        trial.batches[0] = trial._batch(rows=2, seed=5)
    assert fast.step(0).figures["loss"] == pytest.approx(plain.step(0).figures["loss"], rel=2e-3)
    for trial in (plain, fast):
        trial.model.eval()
    with torch.no_grad():
        losses = [trial.model(**trial.batches[1]).loss.item() for trial in (plain, fast)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


@pytest.mark.parametrize("form", ["", "compiled, graphs"])
def test_no_update_is_made_from_numbers_that_are_not_finite(form):
    trial = Trial(form)
    trial.step(0)
    with torch.no_grad():
        trial.model.head.bias[7] = torch.nan
    before = [parameter.clone() for parameter in trial.model.parameters()]
    with pytest.raises(NotFinite, match="step 1"):
        trial.step(1)
    for was, parameter in zip(before, trial.model.parameters(), strict=True):
        assert torch.equal(was.nan_to_num(), parameter.nan_to_num())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("vocabulary", [1001, 30522])
def test_cross_entropy_is_torchs(vocabulary, smoothing):
    torch.manual_seed(0)
    weight, bias = torch.randn(vocabulary, 64, device=DEVICE), torch.randn(vocabulary, device=DEVICE)
    labels = torch.randint(0, vocabulary, (300,), device=DEVICE)
    states = 0.3 * weight[labels] + 0.3 * torch.randn(300, 64, device=DEVICE)
    labels[::7] = -100
    results = []
    for mine in (True, False):
        inputs = [x.clone().requires_grad_() for x in (states, weight, bias)]
        with torch.autocast("cuda", torch.bfloat16, enabled=mine):
            if mine:
                loss, correct = cross_entropy_sum(*inputs, labels, 128, smoothing)
            else:
                logits = F.linear(*(x.bfloat16() for x in inputs)).double()
                loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
                correct = (logits.argmax(-1) == labels).sum()
        (2.0 * loss).backward()
        results.append([loss.detach(), correct, *(x.grad for x in inputs)])
    assert results[0][1] > 100
    for got, expected in zip(*results, strict=True):
        error = (got.double() - expected.double()).abs().max() / expected.double().abs().max()
        assert error < 2e-2, error


@pytest.mark.parametrize("beams", [1, 3])
def test_bf16_decodes_nearly_as_fp32(beams):
    model = small_model(initializer_range=0.1).float().to(DEVICE)
    how = {"max_new_tokens": 4, "min_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    made = []
    for enabled in (False, True):
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            made.append(model.generate(pad(SOURCES).to(DEVICE), num_beams=beams, **how).logits[0].float().flatten())
    assert torch.cosine_similarity(*made, dim=0) > 0.99
