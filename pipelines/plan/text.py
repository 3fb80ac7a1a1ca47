"""The plan as text."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipelines.plan.config import PlanConfig
from pipelines.plan.corpus import Corpus
from pipelines.plan.step import checkpoint_bytes
from pipelines.quantities import count_text, duration
from pmlm_core.model import traffic

if TYPE_CHECKING:
    from pipelines.plan.run import Line, Plan

_HEADS = (
    "GPUs", "rows a GPU", "products", "sending", "all-reduce", "of it shows", "blocks", "step", "hours", "GPU-hours",
    "dollars", "bottleneck",
)  # fmt: skip


def lines(config: PlanConfig, plan: "Plan") -> Iterator[str]:
    """Assumptions, preprocessing, the table, and a sentence for each of its lines."""
    planned, cluster, run = plan.planned, plan.cluster, plan.planned.pretrain
    steps, blocks = run.max_steps, planned.blocks
    yield (
        f"run          {steps:,} steps of {run.batch_size:,} rows of {blocks.max_length}, {blocks.slots:.1f} predicted "
        f"tokens a row, {run.objective}: {count_text(float(steps) * run.batch_size * blocks.max_length)} tokens"
        + ("" if planned.finished else "; its blocks are not made yet and taken to be as the recipe makes them")
    )
    yield (
        f"model        {planned.parameters / 1e6:,.1f} M parameters, {planned.flops_per_row / 1e9:,.1f} GFLOP a row, "
        f"{planned.flops_per_row * run.batch_size * steps:.2e} FLOP in all"
    )
    yield (
        f"moved        {traffic.gradient_bytes(planned.parameters) / 1e6:,.0f} MB of gradients a step, "
        f"{planned.row_bytes:,.0f} bytes of blocks a row, {checkpoint_bytes(planned) / 1e9:.2f} GB a checkpoint "
        f"({checkpoint_bytes(planned) / cluster.storage:.1f} s to write, behind training's back)"
    )
    yield (
        f"assumed      {cluster.mfu:.0%} of {cluster.peak / 1e12:,.0f} TFLOP/s ({cluster.gpu}, {cluster.precision}), "
        f"{config.launch_us:g} us an operation sent, {config.gpus_per_node} GPUs a node of {config.network_gbit:g} "
        f"Gbit/s at {config.network_efficiency:.0%}, storage of {config.storage_gb_per_s:g} GB/s, "
        f"${config.price_per_gpu_hour:g} a GPU-hour"
    )
    if planned.bf16 and cluster.precision != "bf16":
        yield (
            f"note         {cluster.gpu} has no bf16: its {cluster.precision} rate is taken for comparison, but pmlm "
            "trains in bf16 or fp32, and there bf16 is slow"
        )
    if plan.corpus is not None:
        yield from _corpus(config, plan.corpus, planned.bytes_per_token)
    yield ""
    yield from _table([_HEADS, *(_cells(line) for line in plan.lines)])
    yield ""
    for line in plan.lines:
        yield f"{line.gpus:>6,} GPU{'s' * (line.gpus != 1)}: {line.advice}."


def _corpus(config: PlanConfig, corpus: Corpus, bytes_per_token: float) -> Iterator[str]:
    yield (
        f"preprocess   {corpus.text_bytes / 1e9:,.0f} GB of text at {bytes_per_token:.2f} bytes a token: "
        f"{count_text(corpus.tokens)} tokens, {count_text(corpus.rows)} rows; {duration(3600 * corpus.hours)} on "
        f"{corpus.cpus:,} CPUs at {config.preprocess_mb_per_s:g} MB/s each, ${corpus.dollars:,.2f}, reading "
        f"{corpus.read_bytes_per_s / 1e9:.2f} GB/s"
    )
    many = f", {corpus.epochs:.1f} times over them in training"
    if corpus.epochs > corpus.views:
        many += f" (masks repeat after {corpus.views})"
    yield (
        f"blocks       {corpus.block_bytes / 1e9:,.0f} GB with {corpus.views} views, "
        f"${corpus.block_dollars_a_month:,.2f} a month{many}"
    )


def _cells(line: "Line") -> tuple[str, ...]:
    step = line.step
    if step is None:
        return (f"{line.gpus:,}", *["-"] * (len(_HEADS) - 2), line.bottleneck)
    return (
        f"{line.gpus:,}",
        f"{step.micro_batch} x {step.accumulation}",
        _ms(step.products),
        _ms(step.sending),
        _ms(step.all_reduce),
        _ms(step.exposed),
        f"{step.data_bytes_per_s / 1e6:,.0f} MB/s",
        _ms(step.seconds),
        f"{line.hours:,.1f}",
        f"{line.gpu_hours:,.0f}" if line.gpu_hours >= 100 else f"{line.gpu_hours:,.2f}",
        f"{line.dollars:,.0f}" if line.dollars >= 100 else f"{line.dollars:,.2f}",
        line.bottleneck,
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADS))]
    for row in rows:
        yield "  ".join(
            cell.ljust(width) if at == len(_HEADS) - 1 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
