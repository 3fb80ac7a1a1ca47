"""What limits a step, in a word, and what to change about it, in a sentence."""

from pipelines.plan.cluster import Cluster
from pipelines.plan.recipe import Planned
from pipelines.plan.step import Step, largest_fitting

COMPUTE, NETWORK, SENDING, DATA, CHECKPOINTS = "compute", "network", "little work", "data", "checkpoints"
_WORTH_A_WORD = 0.1
"""Share of a step that may go elsewhere before something else than the products is called its bottleneck."""


def bottleneck(step: Step) -> str:
    """What takes most of a step beside the products, or "compute" where that is less than a tenth."""
    work = step.work + step.exposed
    losses = {
        NETWORK: step.exposed,
        SENDING: step.work - step.products,
        DATA: max(0.0, step.data - work),
        CHECKPOINTS: step.checkpoint_wait,
    }
    worst = max(losses, key=lambda name: losses[name])
    return worst if sum(losses.values()) > _WORTH_A_WORD * step.seconds else COMPUTE


def advice(planned: Planned, cluster: Cluster, step: Step) -> str:
    """What to change in the recipe for this number of GPUs."""
    parts = [_settings(planned, step)]
    word = bottleneck(step)
    lost = f"{1 - step.products / step.seconds:.0%} of a step is not spent on products"
    if word == COMPUTE:
        parts.append(f"{step.products / step.seconds:.0%} of a step are products")
    elif word == NETWORK:
        parts.append(
            f"{lost}: {'gathering weights and ' * planned.sharded}summing gradients takes "
            f"{step.all_reduce * 1e3:,.1f} ms, of which {step.exposed * 1e3:,.1f} ms "
            f"{'hide behind nothing' if planned.sharded else 'come after backward'}; a faster network, {_fewer(step)}"
        )
    elif word == SENDING:
        parts.append(
            f"{lost}: sending the operations takes {step.sending * 1e3:,.1f} ms, the products "
            f"{step.products * 1e3:,.1f} ms; {_bigger_passes(planned, cluster, step)}, or {_fewer(step)}"
        )
    elif word == DATA:
        parts.append(
            f"{lost}: the rows take {step.data * 1e3:,.1f} ms to read and prepare "
            f"({step.data_bytes_per_s / 1e6:,.0f} MB/s at this speed); faster storage, or blocks on every node's disk"
        )
    else:
        parts.append(f"{lost}: a checkpoint takes {step.checkpoint:,.1f} s; a larger save_steps and save_minutes")
    return "; ".join(parts)


def _settings(planned: Planned, step: Step) -> str:
    changed = "" if planned.pretrain.num_workers == step.gpus else f" (the recipe has {planned.pretrain.num_workers})"
    text = f"num_workers {step.gpus:,}{changed}"
    if step.settled_by_memory:
        text += f", micro_batch_size {step.micro_batch}: what would be chosen does not fit the memory"
    passes = "in one pass" if step.accumulation == 1 else f"in {step.accumulation} passes of {step.micro_batch}"
    rows = step.accumulation * step.micro_batch
    return f"{text}, {rows:,} row{'s' * (rows != 1)} a GPU {passes}"


def _fewer(step: Step) -> str:
    return "a larger batch_size with the learning rate sought anew" + (", or fewer GPUs" if step.gpus > 1 else "")


def _bigger_passes(planned: Planned, cluster: Cluster, step: Step) -> str:
    rows = largest_fitting(planned, cluster, step.gpus)
    ways = [
        f"micro_batch_size {rows}" if rows > step.micro_batch else "",
        "no torch_compile: false" if planned.pretrain.torch_compile is False else "",
        "no cuda_graphs: false" if planned.pretrain.cuda_graphs is False and step.gpus == 1 else "",
    ]
    return " and ".join(way for way in ways if way) or "a smaller launch_us, if this one is of a slow host"
