"""FSDP in two processes: each holds half, and gradients, norms, copies and optimizer state are those of the whole."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.objectives import Objective
from pmlm_core.model.pretraining import PmlmForPreTraining
from pmlm_core.training.optimizer import build_adamw, load_optimizer_tensors, optimizer_tensors
from pmlm_core.training.pretraining import blank, evaluate, pretraining_task
from pmlm_core.training.sharding import shard
from pmlm_core.training.snapshot import copy_of
from pmlm_core.training.step import Batch, Precision, StepResult, train_step

FP32 = Precision(torch.device("cpu"), "fp32")
TASK = pretraining_task(Objective.AE_PAR)
WORLD, LAYERS, BATCHES = 2, 3, 8


def model() -> PmlmForPreTraining:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 64}
    return PmlmForPreTraining(PmlmConfig(vocab_size=61, **size)).train()


def micro_batch(index: int) -> Batch:
    draw = torch.Generator().manual_seed(index)
    made = {
        "input_ids": torch.randint(6, 60, (2, 12), generator=draw),
        "pseudo_position_ids": torch.arange(4).expand(2, 4),
        "pseudo_steps": torch.arange(1, 5).expand(2, 4),
        "labels": torch.randint(6, 60, (2, 4), generator=draw),
    }
    return blank(made) if index >= BATCHES - 1 else made  # the last is none


def adamw(of: PmlmForPreTraining) -> torch.optim.Optimizer:
    return build_adamw(of, learning_rate=1e-2, betas=(0.9, 0.99), epsilon=1e-6, weight_decay=0.1, rel_pos_lr_scale=9.0)


def step(of: PmlmForPreTraining, optimizer: torch.optim.Optimizer, indices: range, number: int) -> StepResult:
    batches = [(index, micro_batch(index)) for index in indices]
    return train_step(of, optimizer, batches, TASK, step=number, seed=0, precision=FP32, max_grad_norm=0.1)


class Reductions(TorchDispatchMode):
    """Counts how often gradients are summed and shared out."""

    def __enter__(self) -> list[str]:
        super().__enter__()
        self.found: list[str] = []
        return self.found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "reduce_scatter" in str(func):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    mine = model()
    shard(mine, FP32.device, WORLD)
    optimizer = adamw(mine)
    said: dict[str, Any] = {
        "sharded": all(isinstance(p, DTensor) for p in mine.parameters()),
        "held": sum(p.to_local().numel() for p in mine.parameters()),
    }
    step(mine, optimizer, range(rank, BATCHES, WORLD), 0)
    said["scores"] = evaluate(mine, [micro_batch(rank)], TASK, FP32)
    with Reductions() as said["reduced"]:
        said["norm"] = step(mine, optimizer, range(rank, BATCHES, WORLD), 1).gradient_norm
    weights, moments = copy_of(mine, wanted=rank == 0), optimizer_tensors(optimizer, mine, wanted=rank == 0)
    said |= {"weights": weights, "moments": moments}
    if rank:
        said["empty"] = not any(t.numel() for name, t in (weights | moments).items() if not name.startswith("step."))
    # A second one takes over what the first has saved, on every worker.
    box = [copy.deepcopy((weights, moments))]
    dist.broadcast_object_list(box, src=0)
    other = model()
    other.load_state_dict(box[0][0])
    shard(other, FP32.device, WORLD)
    its = adamw(other)
    load_optimizer_tensors(its, other, box[0][1], "here")
    for each, of in ((mine, optimizer), (other, its)):
        step(each, of, range(rank, BATCHES, WORLD), 2)
    said["goes_on"] = all(
        torch.equal(p.to_local(), q.to_local()) for p, q in zip(mine.parameters(), other.parameters(), strict=True)
    )
    torch.save(said, folder / f"said-{rank}")
    dist.destroy_process_group()


def test_two_workers_that_share_a_model_train_it_as_one_does(tmp_path: Path):
    multiprocessing.set_forkserver_preload(["pipelines.pretrain.loop"])  # as other tests do: one server for all
    torch.multiprocessing.start_processes(worker, (tmp_path,), nprocs=WORLD, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"said-{rank}") for rank in range(WORLD))

    alone = model()
    optimizer = adamw(alone)
    step(alone, optimizer, range(BATCHES), 0)
    scores = evaluate(alone, [micro_batch(0), micro_batch(1)], TASK, FP32)
    norm = step(alone, optimizer, range(BATCHES), 1).gradient_norm

    total = sum(p.numel() for p in alone.parameters())
    assert first["sharded"]
    assert first["held"] + second["held"] == total
    assert abs(first["held"] - second["held"]) < 0.02 * total
    assert scores is not None
    torch.testing.assert_close(first["scores"], scores)
    torch.testing.assert_close(first["norm"], norm)
    assert first["norm"] == second["norm"] > 0.1  # so that the update was clipped
    assert len(first["reduced"]) == LAYERS + 1  # once, though there were four micro-batches
    assert second["empty"]
    torch.testing.assert_close(first["weights"], dict(alone.state_dict()), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(first["moments"], optimizer_tensors(optimizer, alone), rtol=1e-3, atol=1e-6)
    assert first["goes_on"]
    assert second["goes_on"]
