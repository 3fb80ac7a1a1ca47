"""What a fine-tuning run would take, before anything is encoded: the text of `pmlm finetune --dry_run`.

Tokens are an estimate from a sample of the training split, encoded on the spot; the rest are formulas of
`pmlm_core/model/cost.py`. Time rests on an assumed share of the processor's peak that the text states.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines import cluster
from pipelines.console import counted
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.families import family_of
from pipelines.finetune.job import Job, settled_micro_batch
from pipelines.finetune.source import keeps_head
from pipelines.finetune.speed import CPU_MFU, GPU_MFU, cpu_peak, gpu_peak
from pipelines.finetune.splits import read_chosen
from pipelines.quantities import count_text, duration, size_text
from pipelines.run_place import named
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.model import cost
from pmlm_core.tasks.base import Recipe

_SAMPLE = 256


@dataclass(frozen=True)
class Size:
    """A run in figures: features of a training split, tokens of the longest and of an average one."""

    parameters: int
    rows: int
    longest: int
    mean: float
    flops_per_row: int
    """Of forward and backward, a multiply-add as 2."""
    shape: SimpleNamespace

    @property
    def flops_per_epoch(self) -> int:
        return self.rows * self.flops_per_row


def sized(job: Job) -> Size:
    """Count a run; its tokens are an estimate from a sample that is encoded now."""
    shape = shape_in(json.loads((Path(job.source.path) / "config.json").read_text(encoding="utf-8")))
    sample = _sample(job)
    count = cost.parameters(
        shape, job.source.vocab_size, max_position_embeddings=job.source.positions, rel_pos_bins=shape.rel_pos_bins
    )
    rows = round(job.train.split.used * sample.features)
    read, target = round(sample.mean - 2 * sample.target), round(sample.target)
    flops = flops_per_row(job.task.kind, shape, job.source.vocab_size, read, target)
    return Size(count, rows, sample.longest, sample.mean, flops, shape)


def describe(job: Job) -> list[str]:
    """Rows, tokens, updates, parameters, memory, time; one a line. For CPUs their peak is measured, about a second."""
    found = sized(job)
    size, rows, mean, longest, count = found.shape, found.rows, found.mean, found.longest, found.parameters
    recipe, seeds = job.recipe, job.config.all_seeds()
    steps = -(-rows // recipe.batch_size)
    micro = settled_micro_batch(job.config, recipe, longest)
    memory = worker_memory(job.config, recipe, size, job.source.vocab_size, count, longest)
    tokens = rows * mean * recipe.num_train_epochs * len(seeds)
    others = ", ".join(f"{part.split.name} {part.split.used:,}" for part in job.final) or "none"
    return [
        f"task         {job.task.name} ({job.task.kind}), epochs chosen by {job.task.metric}; "
        f"run {named(job.config, job.run.path)}",
        f"model        {count_text(count)} parameters ({size.num_hidden_layers} layers x {size.hidden_size}), "
        f"{'fresh weights, architecture' if job.config.from_scratch else 'weights'} of {job.source.path}"
        + ", its head too"
        * keeps_head(job.source, job.task, from_scratch=job.config.from_scratch),
        f"data         {job.train.split.used:,} training examples make about {rows:,} rows of {mean:.0f} tokens "
        f"(the longest about {longest}); predicted at the end: {others}",
        f"training     {counted(recipe.num_train_epochs, 'epoch')} of {counted(steps, 'update')} of "
        f"{counted(recipe.batch_size, 'row')}, {counted(len(seeds), 'seed')}: "
        f"{counted(steps * recipe.num_train_epochs * len(seeds), 'update')}, "
        f"{count_text(tokens)} tokens",
        f"one step     {job.config.num_workers} worker(s), each in "
        f"{recipe.batch_size // job.config.num_workers // micro} forward pass(es) of about {micro} rows",
        f"memory       {size_text(memory.total)} a worker: weights, gradients and Adam {size_text(memory.state)}, "
        f"activations {size_text(memory.activations)}; libraries come on top",
        f"disk         {size_text(12 * count)} a checkpoint, up to 3 while training, {size_text(4 * count)} a seed "
        "at the end",
        *_time(job, found.flops_per_epoch * recipe.num_train_epochs * len(seeds), scored=others != "none"),
    ]


def _time(job: Job, flops: float, *, scored: bool) -> list[str]:
    """Operations of all seeds, and how long they take."""
    config, on_top = job.config, "; scoring and predictions come on top" * scored
    lines = [f"operations   {flops:.2e} FLOP in all (matrix products, forward and backward)"]
    if config.use_gpu:
        there = gpu_peak()
        seconds = flops / (there.rate * GPU_MFU) / config.num_workers
        where = f"on {config.num_workers} H100{'s' * (config.num_workers > 1)}, at an assumed {GPU_MFU:.0%} of the"
        return [*lines, f"time         {duration(seconds)} {where} {there.source}{on_top}"]
    threads = cluster.threads_per_worker(config.cpus_per_worker, config.num_workers) * config.num_workers
    here = cpu_peak(threads, config.precision)
    seconds = flops / (here.rate * CPU_MFU)
    return [
        *lines,
        f"time here    {duration(seconds)} on {threads} of this machine's CPUs, at an assumed {CPU_MFU:.0%} of "
        f"{here.rate / 1e9:,.0f} GFLOP/s ({here.source}){on_top}",
    ]


def flops_per_row(kind: str, shape: SimpleNamespace, vocab_size: int, tokens: int, target: int) -> int:
    """Matrix products of a feature, forward and backward; the last layer computes what the task's head reads.

    Args:
        kind: of a task.
        tokens: of the text that is read.
        target: of the text that is to be generated.
    """
    generates = kind == "generation"
    slots = {"generation": target, "question_answering": tokens}.get(kind, 1)
    return cost.flops_per_step(
        shape,
        vocab_size=vocab_size if generates else 0,
        rows=1,
        context=tokens,
        slots=slots,
        objective="PAR" if generates else "AE",
    )


def worker_memory(
    config: FinetuneConfig, recipe: Recipe, shape: SimpleNamespace, vocab_size: int, parameters: int, longest: int
) -> cost.Memory:
    """What a worker needs; "auto" on a CPU may come out either way, so it is counted for the wider.

    Args:
        longest: tokens of a feature, a target twice.
    """
    slots = recipe.max_target_length
    return cost.worker_memory(
        shape,
        parameters,
        rows=settled_micro_batch(config, recipe, longest),
        context=max(8, longest - 2 * slots),
        slots=slots,
        vocab_size=vocab_size,
        objective="PAR" if slots else "AE",
        bf16=config.precision == "bf16" or (config.precision == "auto" and config.use_gpu),
        on_gpu=config.use_gpu,
    )


def shape_in(saved: Mapping[str, Any]) -> SimpleNamespace:
    """Sizes of the model that a config.json describes."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    return SimpleNamespace(
        **{name: int(saved[name]) for name in names}, rel_pos_bins=int(saved.get("rel_pos_bins", 32))
    )


@dataclass(frozen=True)
class _Sample:
    """Of the first examples: features an example; tokens of the longest feature and of an average one, in which a
    target counts twice; tokens of an average target."""

    features: float
    longest: int
    mean: float
    target: float


def _sample(job: Job) -> _Sample:
    examples = list(islice(read_chosen(job.task, job.config.data_dir, job.train.split), _SAMPLE))
    family = family_of(job.task, job.recipe, TextTokenizer.load(job.source.path))
    features = family.encode(examples, training=True)
    targets = [len(row.get("target_ids", ())) for row in features] or [0]
    lengths = [len(row["input_ids"]) + 2 * target for row, target in zip(features, targets, strict=True)] or [1]
    mean, target = sum(lengths) / len(lengths), sum(targets) / len(targets)
    return _Sample(len(features) / len(examples), max(lengths), mean, target)
