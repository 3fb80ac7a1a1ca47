"""What a pre-training run weighs, by the formulas of its dry run: memory, and disk for checkpoints."""

from dataclasses import dataclass

from pipelines.pretrain import dry_run
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.plan import settled_micro_batch

LIBRARIES = 10**9
"""Torch, Ray and pyarrow of one worker."""


@dataclass(frozen=True)
class Weight:
    """In bytes: memory of one worker, libraries beside it, and the most that all checkpoints take at once."""

    worker: int
    disk: int
    libraries: int = LIBRARIES


PREPROCESSING = Weight(450 * 10**6, 0, libraries=0)
"""The largest worker, libraries and tokenizer included, as `pmlm preprocess` tells it at its end: 411 MB on 711 books
with max_length 128 (docs/results.md), 324 MB on 66 MB of books with 512, in pieces of 4 MiB and of 32 MiB alike."""


def weigh(config: PretrainConfig) -> Weight:
    """Count a run, on its blocks or, before there are any, on blocks of the paper's form.

    Raises:
        PmlmError: the options contradict each other, or the blocks are damaged.
        OSError: the object store that holds them failed.
    """
    config.validate()
    blocks = (dry_run.read_blocks(config.data_dir) if config.data_dir else None) or dry_run.ASSUMED
    rows = settled_micro_batch(config, blocks.max_length, blocks.most_slots)
    # "auto" on a CPU may come out either way: counted for the wider.
    bf16 = config.precision == "bf16" or (config.precision == "auto" and config.use_gpu)
    found = dry_run.make_plan(config, blocks, rows, bf16=bf16)
    # Those to keep, the best, and one that is being written while the oldest is still there.
    return Weight(found.memory.total, found.checkpoint_bytes * (config.keep_checkpoints + 2))
