"""Pre-training as a task: sums over predictions, held-out means that do not depend on how rows are cut."""

import pytest
import torch

from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.objectives import Objective
from pmlm_core.model.pretraining import PmlmForPreTraining
from pmlm_core.training.pretraining import (
    blank,
    count_predictions,
    count_tokens,
    evaluate,
    measure,
    pretraining_task,
)
from pmlm_core.training.step import Precision

FP32 = Precision(torch.device("cpu"), "fp32")


def batch(rows: int = 6) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    context, slots = 12, 4
    steps = torch.tensor([1, 2, 3, 4]).repeat(rows, 1) * (torch.arange(rows) % 3 + 2 > torch.arange(4)[:, None]).T
    return {
        "input_ids": torch.randint(6, 60, (rows, context)),
        "attention_mask": (torch.arange(context) < 10).long().repeat(rows, 1),
        "token_type_ids": torch.zeros(rows, context, dtype=torch.long),
        "pseudo_position_ids": torch.tensor([1, 3, 5, 7]).repeat(rows, 1),
        "pseudo_steps": steps,
        "labels": torch.where(steps > 0, torch.randint(6, 60, (rows, slots)), -100),
    }


def model(objective: str) -> PmlmForPreTraining:
    torch.manual_seed(1)
    config = PmlmConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        objective=objective,
    )
    return PmlmForPreTraining(config)


@pytest.mark.parametrize("objective", list(Objective))
def test_loss_is_the_sum_of_the_objective_s_parts_over_predictions(objective):
    task = pretraining_task(objective)
    trained = model(objective).eval()
    loss_sum, figures = task.losses(trained, batch())
    assert tuple(figures) == task.figures
    assert any(name.startswith("ae") for name in task.figures) == objective.has_ae
    assert any(name.startswith("par") for name in task.figures) == objective.has_par
    mean = trained(**batch()).loss
    assert (loss_sum / count_predictions(batch())).item() == pytest.approx(mean.item(), rel=1e-5)


def test_counts():
    assert count_tokens(batch()) == 60
    full = {name: tensor for name, tensor in batch().items() if name != "attention_mask"}
    assert measure(full) == (count_predictions(batch()), 6 * 12)
    assert measure(blank(full)) == (0, 0)  # its row is another worker's, or nobody's
    assert count_predictions(batch()) == 2 + 3 + 4 + 2 + 3 + 4


@pytest.mark.parametrize("sizes", [[6], [1, 5], [2, 2, 2]])
def test_held_out_means_do_not_depend_on_the_cut(sizes):
    task = pretraining_task(Objective.AE_PAR)
    trained = model("AE+PAR").train()
    parts = {name: tensor.split(sizes) for name, tensor in batch().items()}
    found = evaluate(trained, [{n: p[i] for n, p in parts.items()} for i in range(len(sizes))], task, FP32)
    whole = evaluate(trained, [batch()], task, FP32)
    assert found == pytest.approx(whole, rel=1e-5)
    assert trained.training
    assert whole is not None
    assert whole["loss"] == pytest.approx(whole["ae_loss"] + whole["par_loss"], rel=1e-6)


def test_nothing_held_out_is_nothing():
    assert evaluate(model("AE"), [], pretraining_task(Objective.AE), FP32) is None
