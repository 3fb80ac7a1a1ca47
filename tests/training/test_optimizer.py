"""AdamW: who decays, and state that survives a round trip to the bit."""

import pytest
import torch
from torch import nn

from pmlm_core.errors import CheckpointError
from pmlm_core.training.optimizer import build_adamw, load_optimizer_tensors, optimizer_tensors, set_learning_rate


class Model(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.rel_pos_bias = nn.Embedding(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.dense(x)) + self.rel_pos_bias.weight.sum()


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return build_adamw(model, learning_rate=0.1, betas=(0.9, 0.98), epsilon=1e-6, weight_decay=0.5)


def train(model: Model, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        model(torch.randn(3, model.dense.in_features)).square().sum().backward()
        optimizer.step()


def test_only_matrices_decay():
    model = Model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"dense.weight"}


def test_the_relative_bias_learns_at_its_own_rate():
    model = Model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_adamw(
        model, learning_rate=1.0, betas=(0.9, 0.98), epsilon=1e-12, weight_decay=0.0, rel_pos_lr_scale=30.0
    )
    set_learning_rate(optimizer, 0.001)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    # The first update of Adam is the learning rate itself, against the gradient's sign.
    for name, p in model.named_parameters():
        moved = 0.03 if name == "rel_pos_bias.weight" else 0.001
        torch.testing.assert_close(p, before[name] - moved, msg=lambda text, name=name: f"{name}: {text}")


def test_state_goes_on_bitwise_after_a_round_trip():
    torch.manual_seed(0)
    straight = Model()
    resumed = Model()
    resumed.load_state_dict(straight.state_dict())
    optimizer = adamw(straight)
    train(straight, optimizer, range(6))

    first = adamw(resumed)
    train(resumed, first, range(3))
    again = Model()
    again.load_state_dict(resumed.state_dict())
    second = adamw(again)
    load_optimizer_tensors(second, again, optimizer_tensors(first, resumed), "here")
    train(again, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))


def test_state_is_copied_not_shared():
    model = Model()
    optimizer = adamw(model)
    train(model, optimizer, range(1))
    taken = optimizer_tensors(optimizer, model)
    before = {name: tensor.clone() for name, tensor in taken.items()}
    train(model, optimizer, range(1, 3))
    assert all(torch.equal(taken[name], before[name]) for name in taken)


def test_state_of_another_architecture_is_refused():
    model = Model()
    optimizer = adamw(model)
    train(model, optimizer, range(1))
    tensors = optimizer_tensors(optimizer, model)
    other = Model(width=6)
    with pytest.raises(CheckpointError, match=r"'dense\.weight' has shape \(4, 4\)"):
        load_optimizer_tensors(adamw(other), other, tensors, "here")
    with pytest.raises(CheckpointError, match=r"'exp_avg\.gone', which this model does not have"):
        load_optimizer_tensors(adamw(model), model, {"exp_avg.gone": torch.zeros(1)}, "here")


@pytest.mark.parametrize("part", ["exp_avg", "exp_avg_sq", "step"])
def test_missing_state_is_refused(part):
    model = Model()
    optimizer = adamw(model)
    train(model, optimizer, range(1))
    tensors = optimizer_tensors(optimizer, model)
    del tensors[f"{part}.dense.weight"]
    with pytest.raises(CheckpointError, match=rf"here: optimizer state '{part}\.dense\.weight' is missing"):
        load_optimizer_tensors(adamw(model), model, tensors, "here")


def test_a_parameter_that_never_had_a_gradient_needs_no_state():
    model = Model()
    tensors = optimizer_tensors(adamw(model), model)
    fresh = adamw(model)
    load_optimizer_tensors(fresh, model, tensors, "here")
    assert not fresh.state
