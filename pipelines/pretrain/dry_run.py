"""What a pre-training run would take, before anything starts: the text of `pmlm pretrain --dry_run`.

All figures are formulas of `pmlm_core/model/cost.py`; hours rest on an assumed share of the processor's peak (MFU)
that the text states, since no formula knows the machine.
"""

import json
import os
from dataclasses import dataclass
from types import SimpleNamespace

from pipelines.pretrain.config import PretrainConfig
from pipelines.quantities import count_text, duration, size_text
from pmlm_core import storage
from pmlm_core.corpus.manifest import MANIFEST, Manifest
from pmlm_core.model import cost
from pmlm_core.model.objectives import Objective
from pmlm_core.training.datasheet import MEASURED_MFU

CPU_MFU = 0.4
# For comparison across machines; the rates stand in pmlm_core/training/datasheet.py. A V100 has no bf16: its fp16 rate.
_GPUS = (("H100", "H100 80GB HBM3", "bf16"), ("A100", "A100", "bf16"), ("V100", "V100", "fp16"))


@dataclass(frozen=True)
class Blocks:
    """What the plan needs to know of a set of blocks; `slots` is the mean number of predicted tokens a row."""

    rows: int
    tokens: int
    slots: float
    vocab_size: int
    max_length: int
    views: int
    mask_prob: float = 0.15
    max_block: int = 6

    @property
    def most_slots(self) -> int:
        """K, the most slots a row can have; every row takes their memory."""
        return cost.max_predictions(self.max_length, self.mask_prob, self.max_block)


ASSUMED = Blocks(rows=0, tokens=0, slots=78.0, vocab_size=30522, max_length=512, views=0)
"""The paper's form of data, for a run whose blocks are not made yet (docs/method.md, 2 gives the 78)."""


@dataclass(frozen=True)
class Plan:
    """A run in figures. Bytes are those of one worker; FLOPs, a multiply-add as 2, those of the whole run."""

    parameters: int
    tokens_seen: int
    predictions: int
    epochs: float | None
    flops_per_step: int
    flops: int
    memory: cost.Memory
    checkpoint_bytes: int
    micro_batch: int

    def hours(self, rate: float, mfu: float) -> float:
        """Processor-hours at `mfu` of a peak `rate` (operations a second)."""
        return self.flops / (rate * mfu) / 3600


def read_blocks(data_dir: str) -> Blocks | None:
    """Read the size of finished blocks from their manifest, None if there are none yet.

    Raises:
        DataError: the manifest is damaged or of another format.
    """
    if not storage.exists(storage.join(data_dir, MANIFEST)):
        return None
    manifest = Manifest.load(data_dir)
    rows = manifest.rows("train")
    masked = sum(entry.masked_tokens for entry in manifest.splits.get("train", []))
    return Blocks(
        rows=rows,
        tokens=manifest.tokens("train"),
        slots=masked / rows if rows else 0.0,
        vocab_size=manifest.vocab_size,
        max_length=manifest.max_length,
        views=manifest.views,
        mask_prob=float(manifest.config.get("mask_prob", ASSUMED.mask_prob)),
        max_block=int(manifest.config.get("max_block", ASSUMED.max_block)),
    )


def make_plan(config: PretrainConfig, blocks: Blocks, micro_batch: int, *, bf16: bool) -> Plan:
    """Count what `config` takes on `blocks` with `micro_batch` rows a forward pass."""
    size = SimpleNamespace(**architecture(config))
    count = cost.parameters(
        size,
        blocks.vocab_size,
        max_position_embeddings=max(512, blocks.max_length),
        rel_pos_bins=size.rel_pos_bins,
    )
    per_step = cost.flops_per_step(
        size,
        vocab_size=blocks.vocab_size,
        rows=config.batch_size,
        context=blocks.max_length,
        slots=round(blocks.slots),
        objective=config.objective,
    )
    memory = cost.worker_memory(
        size,
        count,
        rows=micro_batch,
        context=blocks.max_length,
        slots=blocks.most_slots,
        vocab_size=blocks.vocab_size,
        objective=config.objective,
        bf16=bf16,
        on_gpu=config.use_gpu,
        recomputed=config.gradient_checkpointing,
        sharers=config.num_workers if config.parallel == "fsdp" else 1,
        passes=config.batch_size // config.num_workers // micro_batch,
    )
    rows_seen = config.batch_size * config.max_steps
    aim = Objective(config.objective)
    return Plan(
        parameters=count,
        tokens_seen=round(rows_seen * (blocks.tokens / blocks.rows if blocks.rows else blocks.max_length)),
        predictions=round(rows_seen * blocks.slots) * (aim.has_ae + aim.has_par),
        epochs=rows_seen / blocks.rows if blocks.rows else None,
        flops_per_step=per_step,
        flops=per_step * config.max_steps,
        memory=memory,
        checkpoint_bytes=cost.checkpoint_bytes(count),
        micro_batch=micro_batch,
    )


def architecture(config: PretrainConfig) -> dict[str, int]:
    """Sizes of the model: of the options, or of the checkpoint that the run starts from."""
    if config.init_checkpoint is None:
        return {**config.size(), "rel_pos_bins": config.rel_pos_bins}
    saved = json.loads(storage.read_bytes(storage.join(config.init_checkpoint, "config.json")))
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    return {name: int(saved[name]) for name in names} | {"rel_pos_bins": int(saved.get("rel_pos_bins", 32))}


def describe(config: PretrainConfig, micro_batch: int, *, bf16: bool) -> str:
    """Write the plan of `config` as text; measures this machine's peak when the run is on CPUs (about a second)."""
    blocks = read_blocks(config.data_dir)
    plan = make_plan(config, blocks or ASSUMED, micro_batch, bf16=bf16)
    lines = [
        f"model        {count_text(plan.parameters)} parameters ({_sizes(config)}), objective {config.objective}",
        _data_line(config, blocks),
        f"training     {config.max_steps:,} steps of {config.batch_size:,} rows: {count_text(plan.tokens_seen)} "
        f"tokens, {count_text(plan.predictions)} predictions" + _epochs(plan, blocks),
        f"one step     {count_text(plan.flops_per_step)} FLOP over {config.num_workers} worker(s), each in "
        f"{config.batch_size // config.num_workers // plan.micro_batch} forward pass(es) of {plan.micro_batch} rows",
        f"memory       {size_text(plan.memory.total)} a worker: "
        f"{size_text(plan.memory.state)} weights, gradients and Adam{_sharded(config)}, "
        f"{size_text(plan.memory.activations)} activations "
        f"({'bf16' if bf16 else 'fp32'}); the libraries come on top (0.5 to 1 GB)",
        f"disk         {size_text(plan.checkpoint_bytes)} a checkpoint, up to {config.keep_checkpoints + 1} kept",
        f"operations   {plan.flops:.2e} FLOP in all (matrix products, forward and backward)",
        *_hours(config, plan, bf16=bf16),
    ]
    return "\n".join(lines)


def _sharded(config: PretrainConfig) -> str:
    if config.parallel == "ddp" or config.num_workers == 1:
        return ""
    return f" (shared by {config.num_workers} workers)"


def _sizes(config: PretrainConfig) -> str:
    size = architecture(config)
    return f"{size['num_hidden_layers']} layers x {size['hidden_size']}, {size['num_attention_heads']} heads"


def _data_line(config: PretrainConfig, blocks: Blocks | None) -> str:
    if blocks is None:
        there = storage.is_remote(config.data_dir) or os.path.isdir(config.data_dir)
        lacks = "holds no finished blocks yet" if there else "does not exist yet"
        return (
            f"data         {config.data_dir} {lacks} (pmlm preprocess makes the blocks); counted for "
            f"rows of {ASSUMED.max_length} tokens and a vocabulary of {ASSUMED.vocab_size:,}"
        )
    return (
        f"data         {blocks.rows:,} rows of {blocks.max_length}, {count_text(blocks.tokens)} tokens, {blocks.views} "
        f"views, {blocks.slots:.1f} predicted tokens a row, vocabulary {blocks.vocab_size:,}"
    )


def _epochs(plan: Plan, blocks: Blocks | None) -> str:
    if plan.epochs is None or blocks is None:
        return ""
    again = ""
    if plan.epochs > blocks.views:
        again = f" (more than the {blocks.views} views: masks repeat after that many)"
    return f", {plan.epochs:.2f} times over the data{again}"


def _hours(config: PretrainConfig, plan: Plan, *, bf16: bool) -> list[str]:
    from pmlm_core.training.peak import datasheet, peak

    lines = []
    if not config.use_gpu:
        here = peak("cpu", "bf16" if bf16 else "fp32")
        hours = plan.hours(here.rate, CPU_MFU)
        lines.append(
            f"time here    {duration(hours * 3600)} on all of this machine's cores, at an assumed {CPU_MFU:.0%} of "
            f"{here.rate / 1e9:,.0f} GFLOP/s ({here.source})"
        )
    estimates = []
    for label, name, precision in _GPUS:
        found = datasheet(name, precision)
        if found is not None:
            estimates.append(f"{label} {duration(3600 * plan.hours(found.rate, MEASURED_MFU))}")
    lines.append(
        f"GPU-hours    {', '.join(estimates)}, at an assumed MFU of {MEASURED_MFU:.0%} of the data sheet's 16-bit peak"
    )
    return lines
