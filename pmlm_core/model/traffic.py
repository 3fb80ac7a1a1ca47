"""What a run moves, by formula: blocks read, gradients between workers, operations sent to a GPU. No torch here.

`pmlm plan` reckons with these beside the operations and bytes of `cost`; `benchmarks/cost_model.py` holds them against
measurements, and docs/scaling.md has those figures.
"""

import math

from pmlm_core.model.cost import Size
from pmlm_core.model.objectives import Objective

_OPERATIONS = {(True, False): (144, 73), (False, True): (171, 86), (True, True): (251, 86)}
"""By (has_ae, has_par): operations outside the layers, and in each; counted by tests/model/operations_counted.py."""


def mean_predictions(
    max_length: int, mask_prob: float = 0.15, block_prob: float = 0.4, min_block: int = 2, max_block: int = 6
) -> float:
    """Predicted slots of an average row: the budget, and by how much the last block exceeds it.

    The excess is that of renewal theory, E[L(L-1)] / 2E[L] for blocks of length L; blocks that are discarded because
    they overlap make it a little less.

    >>> round(mean_predictions(512), 1)
    78.3
    """
    lengths = range(min_block, max_block + 1)
    mean, square = ((1 - block_prob) + block_prob * sum(n**p for n in lengths) / len(lengths) for p in (1, 2))
    return math.ceil(mask_prob * (max_length - 3)) + (square - mean) / (2 * mean)


def view_bytes(slots: float, vocab_size: int, mean_block: float = 2.05) -> float:
    """Bytes of one masked view of one row in a shard: positions, replacements, step lengths, and three offsets.

    `mean_block` is masked tokens a step (docs/method.md, 2: 78 in 38).
    """
    return slots * (2 + token_bytes(vocab_size)) + slots / mean_block + 3 * 4


def text_bytes(tokens: float, vocab_size: int) -> float:
    """Bytes of one row's tokens in a shard, with their offset and the start of the second segment."""
    return tokens * token_bytes(vocab_size) + 4 + 2


def block_bytes(tokens: float, slots: float, vocab_size: int, views: int) -> float:
    """Bytes of one row in a shard with all its views; training reads one view at a time (`views=1`).

    >>> round(block_bytes(512, 78, 30522, views=10))
    4650
    """
    return text_bytes(tokens, vocab_size) + views * view_bytes(slots, vocab_size)


def token_bytes(vocab_size: int) -> int:
    """Bytes of a token id in a shard."""
    return 2 if vocab_size <= 1 << 16 else 4


def gradient_bytes(parameter_count: int) -> int:
    """Bytes of the gradients that all workers sum once a step, whatever the accumulation: fp32."""
    return 4 * parameter_count


def late_gradient_bytes(size: Size, vocab_size: int, max_position_embeddings: int = 512) -> int:
    """The part of them that backward finishes last, so that its sum hides behind nothing: the embeddings.

    The output layer shares the token embedding, whose gradient is whole only when the input's part has been added.
    """
    return 4 * (vocab_size + max_position_embeddings + 2) * size.hidden_size


def all_reduce_bytes(nbytes: float, workers: int) -> float:
    """Bytes that each of `workers` sends, and receives, to sum `nbytes` around a ring.

    >>> all_reduce_bytes(100, 1), all_reduce_bytes(100, 2), all_reduce_bytes(100, 8)
    (0.0, 100.0, 175.0)
    """
    return 2 * (workers - 1) / workers * nbytes


def sharded_bytes(nbytes: float, workers: int, passes: int) -> float:
    """Bytes that each of `workers` sends, and receives, in a step of weights of `nbytes` that they share (FSDP).

    In every one of `passes` the weights are gathered for forward and for backward; gradients are summed once.

    >>> sharded_bytes(100, 1, 1), sharded_bytes(100, 2, 1), sharded_bytes(100, 2, 4)
    (0.0, 150.0, 450.0)
    """
    return (workers - 1) / workers * nbytes * (2 * passes + 1)


def operations_sent(size: Size, objective: str) -> int:
    """About how many operations (views of memory left out) forward and backward of a micro-batch send to a GPU.

    Counted for the eager model under autocast; a GPU that computes faster than they are sent waits for them.
    """
    aim = Objective(objective)
    outside, per_layer = _OPERATIONS[aim.has_ae, aim.has_par]
    return outside + per_layer * size.num_hidden_layers
