"""What a model costs: parameters, floating-point operations and memory, by formula. No torch here.

The formulas count what the code in this folder does, the short cut of the last layer included (it computes queries
and the feed-forward block only for the slots that are predicted). `tests/model/test_cost.py` holds them against the
real modules.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from pmlm_core.model.objectives import Objective


class Size(Protocol):
    """What the formulas need to know; a `PmlmConfig` and a plain dataclass both fit."""

    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...


def max_predictions(max_length: int, mask_prob: float = 0.15, max_block: int = 6) -> int:
    """Slots K that a row of `max_length` tokens needs at most, rounded up to a multiple of 8.

    Masking stops at the first block that brings the row to its budget (docs/method.md, 2), so it can overshoot by
    `max_block - 1`; three of the tokens are `[SOS]` and two `[EOS]`.

    >>> max_predictions(512), max_predictions(128)
    (88, 24)
    """
    needed = math.ceil(mask_prob * (max_length - 3)) + max_block - 1
    return math.ceil(needed / 8) * 8


def parameters(
    size: Size,
    vocab_size: int,
    *,
    max_position_embeddings: int = 512,
    type_vocab_size: int = 2,
    rel_pos_bins: int = 32,
) -> int:
    """Number of trainable parameters of `PmlmForPreTraining`; the tied output embedding counts once.

    >>> from pmlm_core.model.presets import preset
    >>> round(parameters(preset("base"), 30522) / 1e6)
    110
    """
    d = size.hidden_size
    embeddings = (vocab_size + max_position_embeddings + type_vocab_size) * d + 2 * d
    head = d * d + d + 2 * d + vocab_size
    layers = size.num_hidden_layers * _layer_parameters(size)
    return embeddings + layers + size.num_attention_heads * rel_pos_bins + head


def _layer_parameters(size: Size) -> int:
    d, f = size.hidden_size, size.intermediate_size
    attention = 4 * d * d + 3 * d  # query, key, value, output; the key has no bias
    feed_forward = 2 * d * f + f + d
    return attention + feed_forward + 4 * d  # two LayerNorms


def forward_flops(size: Size, *, vocab_size: int, context: int, slots: int, objective: str) -> int:
    """Operations of the matrix products of one row's forward pass (a multiply-add counts as 2).

    Args:
        context: N, tokens of the row.
        slots: K, predicted slots of the row.
        objective: a value of `Objective`.
    """
    aim = Objective(objective)
    n, k, d, f = context, slots, size.hidden_size, size.intermediate_size
    appended = 2 * k if aim.has_par else 0
    total = n + appended
    read = k * (aim.has_ae + aim.has_par)  # queries of the last layer
    projections = 2 * d * d
    full_layer = total * (4 * projections + 4 * d * f) + 4 * d * (n * n + appended * total)
    last_scores = k * n * aim.has_ae + k * total * aim.has_par
    last_layer = total * 2 * projections + read * (2 * projections + 4 * d * f) + 4 * d * last_scores
    head = read * (projections + 2 * d * vocab_size)
    return (size.num_hidden_layers - 1) * full_layer + last_layer + head


def flops_per_step(
    size: Size, *, vocab_size: int, rows: int, context: int, slots: int, objective: str = "AE+PAR"
) -> int:
    """Operations of one training step on `rows` rows: forward, and twice that for backward.

    Count with the mean number of predicted slots for a cost, with the padded number for what a static graph executes.

    >>> from pmlm_core.model.presets import preset
    >>> steps, rows = 500_000, 7680
    >>> f"{steps * flops_per_step(preset('base'), vocab_size=30522, rows=rows, context=512, slots=78):.1e}"
    '1.5e+21'
    """
    return 3 * rows * forward_flops(size, vocab_size=vocab_size, context=context, slots=slots, objective=objective)


def state_bytes(parameter_count: int) -> int:
    """Weights, gradients and the two moments of Adam, all fp32, in bytes."""
    return 16 * parameter_count


def sharded_state_bytes(size: Size, parameter_count: int, workers: int, passes: int) -> int:
    """The same for one of `workers` that share them (FSDP), with what is gathered at a time, in bytes.

    Gathered are the weights outside the layers, and of two layers: the one that computes and the next. Gradients are
    whole while they add up over several `passes`; in a single one they are reduced layer by layer.

    >>> from pmlm_core.model.presets import preset
    >>> large, count = preset("large"), parameters(preset("large"), 30522)
    >>> [f"{sharded_state_bytes(large, count, workers, passes=1) / 1e9:.1f}" for workers in (8, 64)]
    ['1.1', '0.5']
    """
    if workers == 1:
        return state_bytes(parameter_count)
    in_layers = size.num_hidden_layers * _layer_parameters(size)
    gathered = parameter_count - in_layers + min(2, size.num_hidden_layers) * _layer_parameters(size)
    gradients = gathered if passes == 1 else parameter_count
    return 16 * parameter_count // workers + 4 * gathered + 4 * gradients


def activation_bytes(
    size: Size,
    *,
    rows: int,
    context: int,
    slots: int,
    vocab_size: int,
    objective: str = "AE+PAR",
    bytes_per_value: int = 4,
    recomputed: bool = False,
    on_gpu: bool = False,
) -> int:
    """Estimate of what a micro-batch of `rows` keeps for backward, in bytes.

    Per layer: the inputs of its products, of GELU and of LayerNorm; once: one chunk of logits. On a CPU also, per
    layer, the attention probabilities, whose signs are the dropout mask, and once the biases of both attention calls.

    Args:
        recomputed: with gradient checkpointing: the fp32 input of every layer, and one layer at a time as above.
        on_gpu: by the tiled kernels, which keep no scores.
    """
    aim = Objective(objective)
    n, d, f, heads = context, size.hidden_size, size.intermediate_size, size.num_attention_heads
    appended = 2 * slots if aim.has_par else 0
    total = n + appended
    scores = 0 if on_gpu else heads * (n * n + appended * total)
    per_layer = (total * (7 * d + 2 * f) + scores) * bytes_per_value
    logits = min(rows * slots, 1024) * vocab_size * bytes_per_value
    biases = 0 if on_gpu else heads * appended * total * bytes_per_value * 2
    layers = size.num_hidden_layers * per_layer
    if recomputed:
        layers = size.num_hidden_layers * total * d * 4 + per_layer
    return rows * (layers + biases) + logits


@dataclass(frozen=True)
class Memory:
    """What a worker needs at its peak, in bytes; libraries come on top."""

    state: int
    """Weights, gradients, Adam's moments, and in bf16 a copy of the weights."""
    activations: int

    @property
    def total(self) -> int:
        return self.state + self.activations


def worker_memory(
    size: Size,
    parameter_count: int,
    *,
    rows: int,
    context: int,
    slots: int,
    vocab_size: int,
    objective: str = "AE+PAR",
    bf16: bool = False,
    on_gpu: bool = False,
    recomputed: bool = False,
    sharers: int = 1,
    passes: int = 1,
) -> Memory:
    """Memory of a worker that trains with micro-batches of `rows`; arguments as of `activation_bytes`.

    The copies of the weights in bf16 are whole, sharded or not: autograd keeps them from forward to backward.

    Args:
        sharers: workers among which weights, gradients and moments are shared out (FSDP).
        passes: micro-batches of a step.

    >>> from pmlm_core.model.presets import preset
    >>> base, count = preset("base"), parameters(preset("base"), 30528)
    >>> how = dict(context=512, slots=88, vocab_size=30528, bf16=True, on_gpu=True)
    >>> f"{worker_memory(base, count, rows=64, **how).total / 1e9:.1f}"  # 14.6 on an H200
    '14.2'
    """
    activations = activation_bytes(
        size,
        rows=rows,
        context=context,
        slots=slots,
        vocab_size=vocab_size,
        objective=objective,
        bytes_per_value=2 if bf16 else 4,
        recomputed=recomputed,
        on_gpu=on_gpu,
    )
    state = sharded_state_bytes(size, parameter_count, sharers, passes)
    return Memory(state + 2 * parameter_count * bf16, activations)


def checkpoint_bytes(parameter_count: int) -> int:
    """A checkpoint's weights and the two moments of Adam, fp32; tokenizer and JSON come on top (less than 1 MB)."""
    return 12 * parameter_count
