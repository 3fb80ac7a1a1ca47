"""What a run takes, by formula: for the dry run, and for whether starting Ray is worth it."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from pipelines.predict.config import PredictConfig
from pipelines.predict.finetuned import Finetuned
from pmlm_core.model import cost

_RATE = 2e10
"""Operations a second of one CPU core, a modest one."""
_BYTES_PER_TOKEN = 4
_LIBRARIES = 600_000_000


@dataclass(frozen=True)
class Cost:
    """Of a run.

    Attributes:
        memory: bytes of one worker, libraries included.
        seconds: of one CPU core.
    """

    parameters: int
    tokens: float
    memory: int
    seconds: float


def cost_of(config: PredictConfig, finetuned: Finetuned, rows: int, nbytes: float) -> Cost:
    """About what it takes to predict rows that hold so many bytes of text together."""
    saved = json.loads((Path(finetuned.source.path) / "config.json").read_text(encoding="utf-8"))
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    size = SimpleNamespace(**{name: int(saved[name]) for name in names})
    vocabulary, recipe = finetuned.source.vocab_size, finetuned.recipe
    count = cost.parameters(
        size,
        vocabulary,
        max_position_embeddings=finetuned.source.positions,
        rel_pos_bins=int(saved.get("rel_pos_bins", 32)),
    )
    body = count - vocabulary * size.hidden_size
    tokens = nbytes / _BYTES_PER_TOKEN
    if not (finetuned.task.kind == "question_answering" and recipe.doc_stride):
        tokens = min(tokens, rows * recipe.max_length)
    # At most one layer's intermediate results, and the scores of its attention.
    width, length, batch = size.hidden_size, recipe.max_length, config.batch_size
    memory = batch * length * (8 * width + size.intermediate_size) * 4
    memory += batch * size.num_attention_heads * length * length * 4
    operations = 2.0 * body * tokens
    if finetuned.task.kind == "generation":
        beams, target = int(finetuned.generation.get("num_beams") or 1), recipe.max_target_length
        cached = 2 * size.num_hidden_layers * width * 4
        memory += batch * cached * (length + beams * target) + 3 * batch * beams * vocabulary * 4
        # Each step computes the last true token and the pseudo mask of every beam, and the whole vocabulary.
        operations += 2.0 * rows * beams * target * (2 * body + vocabulary * width)
    return Cost(count, tokens, 4 * count + memory + _LIBRARIES, operations / _RATE)
