"""A training step on some number of GPUs, in seconds, and where they go.

Twice the GPUs never take fewer GPU-hours here: what every GPU does anew, or waits for, only grows with their number.
"""

from dataclasses import dataclass, replace

from pipelines.plan.cluster import Cluster
from pipelines.plan.recipe import Planned
from pipelines.pretrain.plan import settled_micro_batch
from pmlm_core.errors import ConfigError
from pmlm_core.model import cost, traffic
from pmlm_core.training.batching import divisors

_BACKWARD = 2 / 3
"""Share of a forward and backward pass that is backward, during which gradients are summed."""
_OWN_ROW_S, _ANY_ROW_S = 12e-6, 0.15e-6
"""Processor time of the loader for a row of the worker's own, and for each row of the global batch (to know which it
is), as measured on one core by benchmarks/cost_model.py for rows of 512."""


@dataclass(frozen=True)
class Step:
    """Seconds of a step unless said otherwise; rows are those of one GPU."""

    gpus: int
    micro_batch: int
    accumulation: int
    memory_bytes: float
    products: float
    """The matrix products, at the assumed share of the peak."""
    sending: float
    """The least the host takes to send the operations of these passes; next to nothing where they are CUDA graphs."""
    network_bytes: float
    """Sent by each GPU, and received."""
    all_reduce: float
    exposed: float
    """The part of it that does not hide behind backward."""
    data_bytes_per_s: float
    """Read by the whole cluster."""
    data: float
    """To prepare and read the rows, meanwhile."""
    checkpoint: float
    """To write one, meanwhile."""
    checkpoint_wait: float
    """A step's share of what training waits because a checkpoint is not written when the next is due."""
    settled_by_memory: bool
    """Whether the micro-batch that `pmlm pretrain` would choose, or was told, does not fit."""

    @property
    def work(self) -> float:
        return max(self.products, self.sending)

    @property
    def seconds(self) -> float:
        return max(self.work + self.exposed, self.data) + self.checkpoint_wait


def step_on(planned: Planned, cluster: Cluster, gpus: int) -> Step:
    """The step of `planned` on `gpus`.

    Raises:
        ConfigError: the batch cannot be shared by them, or the model does not fit their memory; with the way out.
    """
    run = planned.pretrain
    micro, fits = _micro_batch(planned, cluster, gpus)
    share = run.batch_size // gpus
    accumulation = share // micro
    pass_products = planned.work * micro * planned.flops_per_row / cluster.rate
    recorded = replace(run, num_workers=gpus, use_gpu=True).records()
    operations = 0 if recorded else traffic.operations_sent(planned.size, run.objective)
    pass_sending = planned.work * operations * cluster.launch
    nbytes = traffic.gradient_bytes(planned.parameters)
    positions = max(512, planned.blocks.max_length)
    late = traffic.late_gradient_bytes(planned.size, planned.blocks.vocab_size, positions) / nbytes
    behind = _BACKWARD * max(pass_products, pass_sending)
    sent = traffic.all_reduce_bytes(nbytes, gpus)
    if planned.sharded:  # weights are gathered in every pass, forward too
        behind = accumulation * max(pass_products, pass_sending)
        sent = traffic.sharded_bytes(nbytes, gpus, accumulation)
    all_reduce = sent / cluster.ring(gpus)
    hidden = min((1 - late) * all_reduce, behind)
    step = Step(
        gpus=gpus,
        micro_batch=micro,
        accumulation=accumulation,
        memory_bytes=planned.memory(micro, gpus),
        products=accumulation * pass_products,
        sending=accumulation * pass_sending,
        network_bytes=sent,
        all_reduce=all_reduce,
        exposed=all_reduce - hidden,
        data_bytes_per_s=0.0,
        data=max(
            share * _OWN_ROW_S + run.batch_size * _ANY_ROW_S, run.batch_size * planned.row_bytes / cluster.storage
        ),
        checkpoint=checkpoint_bytes(planned) / cluster.storage,
        checkpoint_wait=0.0,
        settled_by_memory=not fits,
    )
    between = float(run.save_steps)
    if run.save_minutes is not None:
        between = min(between, max(1.0, run.save_minutes * 60 / step.seconds))
    step = replace(step, checkpoint_wait=max(0.0, step.checkpoint / between - step.seconds))
    return replace(step, data_bytes_per_s=run.batch_size * planned.row_bytes / step.seconds)


def checkpoint_bytes(planned: Planned) -> int:
    """Weights and the two moments of Adam, fp32; the tokenizer beside them is small."""
    return cost.checkpoint_bytes(planned.parameters)


def evaluation_seconds(planned: Planned, cluster: Cluster, gpus: int) -> float:
    """Of all measurements on held-out rows: forward passes."""
    run = planned.pretrain
    times = -(-run.max_steps // run.eval_steps) if run.eval_rows else 0
    return times * run.eval_rows * planned.flops_per_row / 3 / cluster.rate / gpus


def largest_fitting(planned: Planned, cluster: Cluster, gpus: int) -> int:
    """The most rows of a forward pass that divide a GPU's share of the batch and fit the memory; 0 if not one fits."""
    share = planned.pretrain.batch_size // gpus
    fitting = [rows for rows in divisors(share) if planned.memory(rows, gpus) <= cluster.usable_memory]
    return max(fitting, default=0)


def _micro_batch(planned: Planned, cluster: Cluster, gpus: int) -> tuple[int, bool]:
    """Rows of a forward pass, and whether they are what `pmlm pretrain` would take."""
    run = planned.pretrain
    if gpus > run.batch_size:
        raise ConfigError(
            f"batch_size {run.batch_size:,} has fewer rows than {gpus:,} GPUs; take fewer GPUs or a larger batch_size"
        )
    config = replace(run, num_workers=gpus, use_gpu=True)
    settled = settled_micro_batch(config, planned.blocks.max_length, planned.blocks.most_slots)
    if planned.memory(settled, gpus) <= cluster.usable_memory:
        return settled, True
    rows = min(settled, largest_fitting(planned, cluster, gpus))
    if not rows:
        ways = [
            *([] if planned.sharded else ["parallel: fsdp (every GPU holds the whole model now)"]),
            *([] if run.gradient_checkpointing else ["gradient_checkpointing: true"]),
            *("a GPU with more memory", "a smaller preset"),
        ]
        raise ConfigError(
            f"one row needs {planned.memory(1, gpus) / 1e9:.1f} GB and a GPU of this kind has "
            f"{cluster.usable_memory / 1e9:.1f} GB for it. Take {', '.join(ways)}, or a smaller max_length when "
            "preprocessing"
        )
    return rows, False
