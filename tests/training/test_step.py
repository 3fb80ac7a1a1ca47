"""THE training step: the gradient of the whole batch however it is cut, and no update from a bad one."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pmlm_core.errors import NotFinite, TrainingError
from pmlm_core.training.optimizer import build_adamw
from pmlm_core.training.step import Batch, Precision, Task, train_step

FP32 = Precision(torch.device("cpu"), "fp32")


def losses(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    error = (model(batch["x"]).squeeze(-1) - batch["y"]) ** 2 * batch["mask"]
    return error.sum(), {"largest": error.max()}


TASK = Task(("largest",), lambda batch: int(batch["mask"].sum()), losses)


def batch(rows: int, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    # Rows of very different weight, so that a mean of means would be another number.
    return {"x": torch.randn(rows, 3), "y": torch.randn(rows), "mask": (torch.arange(rows) % 3 > 0).float()}


def cut(whole: dict[str, Tensor], sizes: list[int]) -> list[tuple[int, dict[str, Tensor]]]:
    parts = {name: tensor.split(sizes) for name, tensor in whole.items()}
    return [(index, {name: part[index] for name, part in parts.items()}) for index in range(len(sizes))]


def model_and_sgd(dropout: float = 0.0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(dropout), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("sizes", [[12], [6, 6], [1, 4, 7], [1] * 12])
def test_update_is_that_of_the_mean_over_the_whole_batch(sizes):
    whole = batch(12)
    reference, sgd = model_and_sgd()
    loss_sum, _ = losses(reference, whole)
    (loss_sum / whole["mask"].sum()).backward()
    sgd.step()

    model, optimizer = model_and_sgd()
    result = train_step(model, optimizer, cut(whole, sizes), TASK, step=0, seed=0, precision=FP32)
    assert result.count == int(whole["mask"].sum())
    assert result.figures["loss"] == pytest.approx(loss_sum.item(), rel=1e-6)
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_count_that_is_known_is_not_taken_again():
    def never(batch: Batch) -> int:
        raise AssertionError("counted on the device")

    results = []
    for task, counted in ((TASK, None), (Task(TASK.figures, never, losses), 8)):
        model, optimizer = model_and_sgd()
        results.append(
            train_step(model, optimizer, cut(batch(12), [6, 6]), task, step=0, seed=0, precision=FP32, counted=counted)
        )
    assert results[0] == results[1]


def test_dropout_is_a_function_of_seed_step_and_micro_batch():
    def losses_at(step: int, seed: int, order: list[int]) -> float:
        model, optimizer = model_and_sgd(dropout=0.5)
        parts = cut(batch(12), [4, 4, 4])
        chosen = [parts[i] for i in order]
        torch.manual_seed(99)  # whatever state the process is in
        return train_step(model, optimizer, chosen, TASK, step=step, seed=seed, precision=FP32).figures["loss"]

    assert losses_at(3, 0, [0, 1, 2]) == losses_at(3, 0, [0, 1, 2])
    assert losses_at(3, 0, [0, 1, 2]) == pytest.approx(losses_at(3, 0, [2, 0, 1]))
    assert losses_at(3, 0, [0, 1, 2]) != losses_at(4, 0, [0, 1, 2])
    assert losses_at(3, 0, [0, 1, 2]) != losses_at(3, 1, [0, 1, 2])


@pytest.mark.parametrize(("poison", "what"), [(float("nan"), "the loss is nan"), (1e25, "the loss is inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(poison, what):
    whole = batch(12)
    whole["x"][4] = poison
    model, optimizer = model_and_sgd()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match=rf"step 7: {what}.*learning_rate.*max_grad_norm"):
        train_step(model, optimizer, cut(whole, [6, 6]), TASK, step=7, seed=0, precision=FP32)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_finite_loss_with_an_infinite_gradient_stops_too():
    def steep(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return (model(batch["x"]) * 0.0).abs().sqrt().sum(), {}

    model, optimizer = model_and_sgd()
    with pytest.raises(TrainingError, match="the gradient's norm is"):
        train_step(model, optimizer, cut(batch(4), [4]), Task((), TASK.count, steep), step=0, seed=0, precision=FP32)


def test_clipping_bounds_the_update_and_reports_the_norm_before():
    model, optimizer = model_and_sgd()
    before = [p.detach().clone() for p in model.parameters()]
    result = train_step(
        model, optimizer, cut(batch(12), [12]), TASK, step=0, seed=0, precision=FP32, max_grad_norm=1e-3
    )
    moved = torch.cat([(p - q).flatten() for p, q in zip(model.parameters(), before, strict=True)]).norm()
    assert result.gradient_norm > 1e-2
    assert moved.item() == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_a_batch_without_predictions_is_refused():
    model, optimizer = model_and_sgd()
    empty = batch(4) | {"mask": torch.zeros(4)}
    with pytest.raises(TrainingError, match="no predicted token"):
        train_step(model, optimizer, cut(empty, [4]), TASK, step=0, seed=0, precision=FP32)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return build_adamw(model, learning_rate=0.01, betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.1)


def test_an_optimizer_that_judges_for_itself_leaves_a_bad_update_out(monkeypatch):
    """torch's fused AdamW: neither weights nor moments nor its count of updates move."""
    model, _ = model_and_sgd()
    optimizer, whole = adamw(model), batch(12)
    how = {"seed": 0, "precision": FP32}
    train_step(model, optimizer, [(0, whole)], TASK, step=0, **how)
    kept = [model.state_dict(), optimizer.state_dict()["state"]]
    before = copy.deepcopy(kept)
    asked = []
    monkeypatch.setattr(optimizer, "step", lambda step=optimizer.step: asked.append(1) or step())
    with pytest.raises(NotFinite, match="step 1"):
        train_step(model, optimizer, [(0, whole | {"y": whole["y"] * torch.nan})], TASK, step=1, **how)
    assert asked, "the update is asked for before anybody looks, so that a GPU goes on meanwhile"
    torch.testing.assert_close(kept, before, rtol=0, atol=0)
    train_step(model, optimizer, [(0, whole)], TASK, step=1, **how)
    assert not torch.equal(model.state_dict()["0.weight"], before[0]["0.weight"])


def test_a_figure_that_is_not_finite_holds_no_update_back():
    def told(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return losses(model, batch)[0], {"largest": torch.tensor(torch.nan)}

    results = []
    for task in (TASK, Task(TASK.figures, TASK.count, told)):
        model, _ = model_and_sgd()
        train_step(model, adamw(model), [(0, batch(12))], task, step=0, seed=0, precision=FP32)
        results.append(model.state_dict())
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("sizes", [[12], [5, 7]])
def test_gradients_that_are_zeroed_in_place_give_the_same_updates(sizes):
    results = []
    for keep in (False, True):
        model, _ = model_and_sgd()
        optimizer = adamw(model)
        for step in range(3):
            train_step(
                model, optimizer, cut(batch(12), sizes), TASK, step=step, seed=0, precision=FP32, keep_gradients=keep
            )
        results.append([p.detach() for p in model.parameters()])
        assert all((p.grad is not None) for p in model.parameters())
    torch.testing.assert_close(*results, rtol=0, atol=0)
