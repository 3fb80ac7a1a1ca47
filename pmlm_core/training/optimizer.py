"""AdamW with the usual exemptions, and its state as named tensors, so that a checkpoint holds no pickle."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pmlm_core.errors import CheckpointError
from pmlm_core.training.sharding import copy_to_cpu, like

_MOMENTS = ("exp_avg", "exp_avg_sq")
_LR_SCALE = "lr_scale"  # of a parameter group: its learning rate as a multiple of the run's


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, but not to biases, LayerNorm or the relative position bias."""
    return parameter.ndim >= 2 and not is_relative_bias(name)


def is_relative_bias(name: str) -> bool:
    """Whether a parameter is the relative position bias, by its name."""
    return "rel_pos_bias" in name


def build_adamw(
    model: nn.Module,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    rel_pos_lr_scale: float = 1.0,
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`, with weight decay for those that `decays` names.

    Args:
        rel_pos_lr_scale: learning rate of the relative position bias, as a multiple of the others'. The bias is added
            to attention scores and has to reach several units to matter, while Adam moves a parameter by at most about
            the learning rate in an update: a short run is over before the bias has got anywhere.

    The fused implementation (one kernel over many tensors) is used where the device has one.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    bias: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (bias if is_relative_bias(name) else matrices if decays(name, parameter) else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": weight_decay, _LR_SCALE: 1.0},
        {"params": others, "weight_decay": 0.0, _LR_SCALE: 1.0},
        {"params": bias, "weight_decay": 0.0, _LR_SCALE: rel_pos_lr_scale, "lr": learning_rate * rel_pos_lr_scale},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        betas=betas,
        eps=epsilon,
        fused=all(p.device.type in ("cuda", "cpu") and p.is_floating_point() for p in model.parameters()),
    )


def skips_non_finite(optimizer: torch.optim.Optimizer, figures: Tensor) -> bool:
    """Have the next update left out if one of `figures` is not finite, where the optimizer can see to that itself.

    Returns:
        Whether it can: torch's fused AdamW can, on parameters that are whole.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    fused = isinstance(optimizer, torch.optim.AdamW) and all(group["fused"] for group in optimizer.param_groups)
    if not fused or any(isinstance(p, DTensor) for p in parameters):
        return False
    # What a gradient scaler of torch's sets, and with the same meaning: 1 for an update to be left out.
    optimizer.found_inf = (~figures.isfinite().all()).float()  # type: ignore[attr-defined]
    return True


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, each by its own multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(_LR_SCALE, 1.0)


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, *, wanted: bool = True) -> dict[str, Tensor]:
    """The optimizer's state as CPU copies named `<moment>.<parameter name>`, of which `step` counts updates.

    Args:
        wanted: whether this worker needs them. Those of a sharded model are whole only if all workers call this.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if not state:
            tensors[f"step.{name}"] = torch.zeros(())  # no gradient yet: said, so that it is not taken for a loss
            continue
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = copy_to_cpu(state[moment], wanted=wanted).contiguous()
        tensors[f"step.{name}"] = state["step"].detach().to("cpu", torch.float32, copy=True).reshape(())
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Put back what `optimizer_tensors` took.

    Raises:
        CheckpointError: `tensors` (read from `where`) do not fit this model.
    """
    wanted = dict(model.named_parameters())
    known = {f"{part}.{name}" for name in wanted for part in (*_MOMENTS, "step")}
    if unknown := sorted(set(tensors) - known):
        raise CheckpointError(
            f"{where}: optimizer state of '{unknown[0]}', which this model does not have; "
            "the checkpoint is of another architecture: start a new run with another run_name"
        )
    for name, parameter in wanted.items():
        begun = float(tensors.get(f"step.{name}", 1.0)) > 0.0
        needed = [f"{part}.{name}" for part in (*_MOMENTS, "step")] if begun else []
        if missing := [tensor for tensor in needed if tensor not in tensors]:
            raise CheckpointError(
                f"{where}: optimizer state '{missing[0]}' is missing; without it training would not go on where it "
                "stopped: take another checkpoint, or start a new run from this one with init_checkpoint"
            )
        if not begun:
            continue
        state = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
        for moment, tensor in state.items():
            if tensor.shape != parameter.shape:
                raise CheckpointError(
                    f"{where}: {moment} of '{name}' has shape {tuple(tensor.shape)}, "
                    f"the parameter has {tuple(parameter.shape)}; start a new run with another run_name"
                )
        moved = {moment: like(parameter, tensor) for moment, tensor in state.items()}
        step = tensors[f"step.{name}"].to(torch.float32)
        fused_on_device = parameter.device.type == "cuda"
        optimizer.state[parameter] = {"step": step.to(parameter.device) if fused_on_device else step, **moved}
