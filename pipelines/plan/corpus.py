"""What preprocessing a corpus would take: tokens, rows, hours, bytes of blocks, dollars."""

from dataclasses import dataclass

from pipelines.plan.config import PlanConfig
from pipelines.plan.recipe import Planned
from pmlm_core.model import traffic

_FRAME = 3
"""Special tokens of every window; the packing that defines it would bring in a compiler."""


@dataclass(frozen=True)
class Corpus:
    """Of the whole corpus; `epochs` is how often pre-training goes over it."""

    text_bytes: float
    tokens: float
    rows: float
    cpus: int
    hours: float
    dollars: float
    read_bytes_per_s: float
    block_bytes: float
    block_dollars_a_month: float
    views: int
    epochs: float


def corpus_of(config: PlanConfig, planned: Planned) -> Corpus | None:
    """Reckon, if the options tell the size of a corpus."""
    if config.corpus_gb is None:
        return None
    blocks, text_bytes = planned.blocks, config.corpus_gb * 1e9
    tokens = text_bytes / planned.bytes_per_token
    rows = tokens / (blocks.max_length - _FRAME)
    rate = config.cpus * config.preprocess_mb_per_s * 1e6
    hours = text_bytes / rate / 3600
    nbytes = rows * traffic.block_bytes(blocks.max_length, blocks.slots, blocks.vocab_size, blocks.views)
    return Corpus(
        text_bytes=text_bytes,
        tokens=tokens,
        rows=rows,
        cpus=config.cpus,
        hours=hours,
        dollars=hours * config.cpus * config.price_per_cpu_hour,
        read_bytes_per_s=rate,
        block_bytes=nbytes,
        block_dollars_a_month=nbytes / 1e9 * config.price_per_gb_month,
        views=blocks.views,
        epochs=planned.pretrain.batch_size * planned.pretrain.max_steps / rows,
    )
