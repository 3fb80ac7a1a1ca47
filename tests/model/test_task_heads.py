"""Classification, regression and question answering: shapes, losses, padding, loading, learning."""

import logging
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from pmlm_core.errors import ConfigError
from pmlm_core.model import (
    PmlmConfig,
    PmlmForPreTraining,
    PmlmForQuestionAnswering,
    PmlmForSequenceClassification,
)
from pmlm_core.model.task_head import precisely
from pmlm_core.training.step import Precision, Task, train_step

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "rel_pos_bins": 8,
    "max_rel_pos": 16,
    "initializer_range": 0.4,
}
HEADS = {
    PmlmForSequenceClassification: AutoModelForSequenceClassification,
    PmlmForQuestionAnswering: AutoModelForQuestionAnswering,
}
TASK = Task((), lambda batch: len(batch["input_ids"]), lambda model, batch: (model(**batch).loss_sum, {}))
STEPS = 80
both = pytest.mark.parametrize("cls", HEADS)


def make(cls, **options):
    torch.manual_seed(0)
    return cls(PmlmConfig(**(SMALL | options))).eval()


def logits(output):
    return output.logits if hasattr(output, "logits") else torch.stack([output.start_logits, output.end_logits], -1)


def rows(lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(6, 60, (len(lengths), longest), generator=draw)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    ids[:, 0] = 0
    return {
        "input_ids": torch.where(mask == 1, ids, 1),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(longest) >= 3).long() * mask,
    }


def with_answers(cls, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    n = len(batch["input_ids"])
    if cls is PmlmForSequenceClassification:
        return {**batch, "labels": torch.arange(n) % 2}
    return {**batch, "start_positions": torch.arange(n) % 3, "end_positions": torch.arange(n) % 3 + 1}


@both
def test_a_row_does_not_depend_on_padding_or_on_its_neighbours(cls):
    model = make(cls).double()
    batch = with_answers(cls, rows([9, 5, 7]))
    together = model(**batch)
    sums = 0.0
    for b, length in enumerate([9, 5, 7]):
        alone = {k: v[b : b + 1, :length] if v.ndim == 2 else v[b : b + 1] for k, v in batch.items()}
        output = model(**alone)
        sums += output.loss_sum.item()
        expected = logits(together)[b : b + 1]
        if cls is PmlmForQuestionAnswering:
            assert (expected[:, length:] == torch.finfo(torch.float64).min).all()
            expected = expected[:, :length]
        torch.testing.assert_close(logits(output), expected, atol=1e-12, rtol=0)
    assert together.loss_sum.item() == pytest.approx(sums, rel=1e-12)
    assert together.loss.item() == pytest.approx(sums / 3, rel=1e-12)


def test_classification_is_berts_head_on_the_first_state():
    model = make(PmlmForSequenceClassification, num_labels=3)
    batch = rows([9, 5, 7])
    labels = torch.tensor([2, 0, 1])
    states = model.pmlm(**batch).last_hidden_state
    expected = model.classifier(torch.tanh(model.pooler(states[:, 0])))
    output = model(**batch, labels=labels)
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.loss, F.cross_entropy(expected, labels))
    assert output.correct.item() == (expected.argmax(-1) == labels).sum().item()
    assert output.correct.dtype == torch.int64


def test_regression_is_the_mean_squared_error():
    model = make(PmlmForSequenceClassification, num_labels=1)
    assert model.config.problem_type == "regression"
    batch, labels = rows([9, 5]), torch.tensor([0.5, 4.75])
    output = model(**batch, labels=labels)
    assert output.logits.shape == (2, 1)
    expected = sum((x - y) ** 2 for x, y in zip(output.logits[:, 0].tolist(), labels.tolist(), strict=True))
    assert output.loss_sum.item() == pytest.approx(expected, rel=1e-5)
    assert output.loss.item() == pytest.approx(expected / 2, rel=1e-5)
    assert output.correct is None


def test_question_answering_loss_is_the_mean_of_start_and_end():
    model = make(PmlmForQuestionAnswering)
    batch = rows([8, 8])
    output = model(**batch, start_positions=torch.tensor([3, 0]), end_positions=torch.tensor([5, 0]))
    start, end = output.start_logits.log_softmax(-1), output.end_logits.log_softmax(-1)
    expected = -(start[0, 3] + end[0, 5] + start[1, 0] + end[1, 0]) / 2
    assert output.loss_sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.loss.item() == pytest.approx(expected.item() / 2, rel=1e-5)
    best = {"start_positions": output.start_logits.argmax(-1), "end_positions": output.end_logits.argmax(-1)}
    assert model(**batch, **best).correct.item() == 2
    assert model(**batch, **best | {"end_positions": (best["end_positions"] + 1) % 8}).correct.item() == 0


def test_the_callers_configuration_stays_as_it_is():
    config = PmlmConfig(**SMALL, num_labels=1)
    assert PmlmForSequenceClassification(config).config.problem_type == "regression"
    assert config.problem_type is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "must be single_label_classification or regression"),
        ({"problem_type": "regression", "num_labels": 2}, "regression has one"),
    ],
)
def test_contradicting_configurations_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(PmlmForSequenceClassification, **options)


@pytest.fixture
def pretrained(tmp_path):
    model = make(PmlmForPreTraining)
    model.save_pretrained(tmp_path / "pretrained")
    return model, tmp_path / "pretrained"


@both
def test_a_pretraining_checkpoint_gives_the_body_in_silence(cls, pretrained, caplog, capfd):
    model, folder = pretrained
    logging.getLogger("transformers").addHandler(caplog.handler)
    before = torch.get_rng_state()
    try:
        loaded = [HEADS[cls].from_pretrained(folder, head_seed=seed) for seed in (5, 5, 6)]
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert torch.equal(before, torch.get_rng_state())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "MISSING" not in "".join(capfd.readouterr())
    body = model.pmlm.state_dict()
    for each in loaded:
        assert type(each) is cls
        assert all(torch.equal(value, body[name]) for name, value in each.pmlm.state_dict().items())
    heads = [{k: v for k, v in each.state_dict().items() if not k.startswith("pmlm.")} for each in loaded]
    weights = [name for name in heads[0] if name.endswith("weight")]
    assert weights
    for name in weights:
        assert torch.equal(heads[0][name], heads[1][name])
        assert not torch.equal(heads[0][name], heads[2][name])
        assert heads[0][name].std().item() == pytest.approx(0.4, rel=0.3)
    assert all((heads[0][name] == 0).all() for name in heads[0] if name.endswith("bias"))


@both
def test_a_head_that_nobody_said_is_wanted_new_is_reported_missing(cls, pretrained, caplog):
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        HEADS[cls].from_pretrained(pretrained[1])
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "MISSING" in caplog.text


@both
def test_a_fine_tuned_folder_comes_back_whole(cls, pretrained, tmp_path):
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    model = cls.from_pretrained(pretrained_model_name_or_path=pretrained[1], **labels).eval()
    model.save_pretrained(tmp_path / "tuned")
    again = HEADS[cls].from_pretrained(tmp_path / "tuned", head_seed=9).eval()
    assert type(again) is cls
    assert again.config.id2label == labels["id2label"]
    assert again.config.label2id == labels["label2id"]
    assert torch.equal(logits(again(**rows([9, 5]))), logits(model(**rows([9, 5]))))


def test_a_regression_comes_back_as_one(pretrained, tmp_path):
    model = PmlmForSequenceClassification.from_pretrained(pretrained[1], num_labels=1, problem_type="regression")
    model.save_pretrained(tmp_path / "tuned")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert (again.config.problem_type, again.config.num_labels) == ("regression", 1)


@both
def test_a_fine_tuned_folder_without_its_head_is_reported(cls, tmp_path):
    model = make(cls)
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if k.startswith("pmlm.")})
    _, info = HEADS[cls].from_pretrained(tmp_path, output_loading_info=True)
    assert {key.partition(".")[0] for key in info["missing_keys"]} == {
        name for name, _ in model.named_children() if name != "pmlm"
    }


def marked_rows(cls, step: int) -> dict[str, torch.Tensor]:
    """One token 6 or 7 among others: the class is which of them it is; the answer reaches from it to the next."""
    draw = torch.Generator().manual_seed(1000 + step)
    lengths = torch.randint(8, 15, (32,), generator=draw)
    batch = rows(lengths.tolist(), seed=step)
    batch["input_ids"].clamp_(max=29)
    where = 1 + (torch.rand(32, generator=draw) * (lengths - 2)).long()
    which = torch.randint(0, 2, (32,), generator=draw)
    ordinary = (batch["input_ids"] == 6) | (batch["input_ids"] == 7)
    batch["input_ids"][ordinary] = 8
    batch["input_ids"][torch.arange(32), where] = 6 + which
    if cls is PmlmForSequenceClassification:
        return {**batch, "labels": which}
    return {**batch, "start_positions": where, "end_positions": where + 1}


@both
def test_it_learns_a_small_task(cls):
    model = make(cls, vocab_size=30, initializer_range=0.1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    precision = Precision(torch.device("cpu"), "fp32")
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min((step + 1) / 20, (STEPS - step) / 60, 1)
        batch = [(0, marked_rows(cls, step))]
        train_step(model, optimizer, batch, TASK, step=step, seed=0, precision=precision, max_grad_norm=1.0)
    model.eval()
    with torch.inference_mode():
        outputs = [model(**marked_rows(cls, 10_000 + i)) for i in range(4)]
    accuracy = sum(output.correct.item() for output in outputs) / 128
    assert accuracy > 0.9, accuracy  # chance: 0.5 and 0.01


@both
def test_the_head_is_fp32_under_autocast(cls):
    """bf16 has some 50 values between 0 and 1 to tell texts and spans apart by."""
    model = make(cls, **({"num_labels": 1} if cls is PmlmForSequenceClassification else {}))
    batch = rows([12] * 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = logits(model(**batch))
    assert found.dtype == torch.float32
    assert len(found.unique()) > 0.95 * found.numel()
    assert (found.bfloat16().float() != found).float().mean() > 0.9


def test_a_precise_layer_is_the_layer_itself_backwards_too():
    layer, states = nn.Linear(32, 2), torch.randn(4, 32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = precisely(layer, states)
    plain = layer(states.float())
    assert torch.equal(found, plain)
    grads = [torch.autograd.grad(each.square().sum(), tuple(layer.parameters())) for each in (found, plain)]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


@both
def test_a_model_loaded_in_bf16_runs(cls):
    model = make(cls).bfloat16()
    output = logits(model(**rows([9, 5])))
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()


@both
def test_gradients_are_finite_in_bf16(cls):
    model = make(cls, initializer_range=0.1).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    micro_batches = [(0, with_answers(cls, rows([9, 5, 7])))]
    precision = Precision(torch.device("cpu"), "bf16")
    result = train_step(model, optimizer, micro_batches, TASK, step=0, seed=0, precision=precision)
    assert 0 < result.gradient_norm < math.inf
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    half = result.figures["loss"]
    exact = model.eval()(**micro_batches[0][1]).loss_sum.item()
    assert half == pytest.approx(exact, rel=0.2)
