"""A recipe as the plan reads it: the run, its model in figures, and the blocks it has or would have."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from pipelines.options import parse
from pipelines.plan.config import PlanConfig
from pipelines.preprocess.config import PreprocessConfig
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.dry_run import ASSUMED, Blocks, architecture, read_blocks
from pipelines.tokenizer.config import TokenizerConfig
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.model import cost, traffic

_BYTES_PER_TOKEN = 4.5
_CLASSES: dict[str, Any] = {
    "tokenizer": TokenizerConfig,
    "preprocess": PreprocessConfig,
    "pretrain": PretrainConfig,
}


@dataclass(frozen=True)
class Planned:
    """What is planned: options and sizes, the same on every cluster."""

    pretrain: PretrainConfig
    blocks: Blocks
    finished: bool
    """Whether the blocks are there; otherwise they are as the recipe would make them."""
    size: Any
    parameters: int
    bytes_per_token: float

    @property
    def flops_per_row(self) -> float:
        """Of forward and backward, a multiply-add as 2, with the mean number of predicted slots."""
        return cost.flops_per_step(
            self.size,
            vocab_size=self.blocks.vocab_size,
            rows=1,
            context=self.blocks.max_length,
            slots=round(self.blocks.slots),
            objective=self.pretrain.objective,
        )

    @property
    def row_bytes(self) -> float:
        """Bytes of blocks that training reads for a row: the tokens and one view."""
        return traffic.block_bytes(self.blocks.max_length, self.blocks.slots, self.blocks.vocab_size, views=1)

    @property
    def sharded(self) -> bool:
        return self.pretrain.parallel == "fsdp"

    @property
    def work(self) -> float:
        """Forward passes that a forward and backward pass amounts to, as a multiple of the usual three."""
        return 4 / 3 if self.pretrain.gradient_checkpointing else 1.0

    @property
    def bf16(self) -> bool:
        return self.pretrain.precision != "fp32"

    def memory(self, rows: int, gpus: int) -> float:
        """Bytes each of `gpus` needs for micro-batches of `rows`."""
        return cost.worker_memory(
            self.size,
            self.parameters,
            rows=rows,
            context=self.blocks.max_length,
            slots=self.blocks.most_slots,
            vocab_size=self.blocks.vocab_size,
            objective=self.pretrain.objective,
            bf16=self.bf16,
            on_gpu=True,
            recomputed=self.pretrain.gradient_checkpointing,
            sharers=gpus if self.sharded else 1,
            passes=max(1, self.pretrain.batch_size // gpus // rows),
        ).total


def read_recipe(config: PlanConfig) -> Planned:
    """Read the recipe with the plan's changes.

    Raises:
        ConfigError: it cannot be read, or has no section pretrain.
        DataError: its blocks have a damaged manifest.
    """
    sections = _sections(config.recipe)
    pretrain = sections["pretrain"]
    changes = {name: getattr(config, name) for name in ("batch_size", "micro_batch_size", "max_steps")}
    pretrain = replace(pretrain, **{name: value for name, value in changes.items() if value is not None})
    if config.batch_size is not None and config.micro_batch_size is None:
        pretrain = replace(pretrain, micro_batch_size=None)  # the recipe's suits the recipe's batch
    finished = read_blocks(pretrain.data_dir)
    blocks = finished or _would_be(sections.get("preprocess"), sections.get("tokenizer"))
    size = SimpleNamespace(**architecture(pretrain))
    return Planned(
        pretrain=pretrain,
        blocks=blocks,
        finished=finished is not None,
        size=size,
        parameters=cost.parameters(
            size,
            blocks.vocab_size,
            max_position_embeddings=max(512, blocks.max_length),
            rel_pos_bins=size.rel_pos_bins,
        ),
        bytes_per_token=config.bytes_per_token or _bytes_per_token(pretrain.data_dir, finished is not None),
    )


def _sections(path: str) -> dict[str, Any]:
    from pipelines.cli import COMMANDS

    def read(name: str) -> Any:
        return parse(name, _CLASSES[name], "", ["--config", path], tuple(COMMANDS)).config

    found = {"pretrain": read("pretrain")}  # first: it tells what is wrong with the file
    loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return found | {name: read(name) for name in ("preprocess", "tokenizer") if name in loaded}


def _would_be(preprocess: PreprocessConfig | None, tokenizer: TokenizerConfig | None) -> Blocks:
    """The form of blocks that are not made yet."""
    made = preprocess or PreprocessConfig()
    return Blocks(
        rows=0,
        tokens=0,
        slots=traffic.mean_predictions(
            made.max_length, made.mask_prob, made.block_prob, made.min_block, made.max_block
        ),
        vocab_size=tokenizer.vocab_size if tokenizer else ASSUMED.vocab_size,
        max_length=made.max_length,
        views=made.views,
        mask_prob=made.mask_prob,
        max_block=made.max_block,
    )


def _bytes_per_token(data_dir: str, finished: bool) -> float:
    if finished:
        counts = Manifest.load(data_dir).counts
        if counts.get("text_tokens"):
            return counts["text_bytes"] / counts["text_tokens"]
    return _BYTES_PER_TOKEN
