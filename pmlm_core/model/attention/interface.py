"""The one face of attention: what a layer asks for, and who computes it.

A layer's work is a short list of *calls*. In a full layer: A, the context queries over the context keys, and B, the
appended queries over everything. Call A needs no mask (context sees context), and nothing is merged: the calls share
keys, whose gradients are summed. What a call adds to the scores and hides is told in one of two ways: dense, as a
tensor that carries both, or as a `Rule`, from which a kernel makes it a tile at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pmlm_core.model.attention.layer_sums import LayerSums
from pmlm_core.model.attention.relbias import ByDistance
from pmlm_core.model.pseudo import Codes


@dataclass(frozen=True)
class Places:
    """Where queries or keys stand in their text, row by row of the batch, and the order of these places.

    Attributes:
        at_BL: positions, int32, contiguous.
        order_BL: indices that would sort a row by position, int32, contiguous.
    """

    at_BL: Tensor
    order_BL: Tensor

    @classmethod
    def of(cls, positions_BL: Tensor) -> "Places":
        at_BL = positions_BL.to(torch.int32).contiguous()
        return cls(at_BL, at_BL.argsort(dim=1).to(torch.int32).contiguous())


@dataclass(frozen=True)
class Rule:
    """What a call adds to its scores and what it hides, in structure.

    Attributes:
        bias: relative bias; None adds nothing.
        queries: places of the queries; None for 0, 1, 2, …, in every row of the batch.
        keys: places of the keys, likewise.
        codes: who sees whom; None if every query sees every key.
        plain: so many of the first keys stand at 0, 1, 2, … and are seen by every query.
    """

    bias: ByDistance | None
    queries: Places | None
    keys: Places | None
    codes: Codes | None
    plain: int = 0


@dataclass(frozen=True)
class Call:
    """Queries `start:stop` attend to the first `keys` keys.

    Attributes:
        bias: dense: added to the scaled scores, broadcastable to [B, H, stop - start, keys] with its first three
            dimensions possibly 1; None adds nothing.
        sums: where the gradient of `bias` may be added instead of being returned, for a bias of many layers.
        rule: the same in structure, instead of `bias`. The calls of a layer are all dense or all structured.
    """

    start: int
    stop: int
    keys: int
    bias: Tensor | None = None
    sums: LayerSums | None = None
    rule: Rule | None = None


Kernel = Callable[[Tensor, Tensor, Tensor, Sequence[Call], float], Tensor]
"""kernel(q_BQHE, k_BSHE, v_BSHE, calls, dropout_p) -> out_BQHE, where the calls cover the queries in order.

`dropout_p` acts on the attention probabilities; 0 outside training. The scores are scaled by E ** -0.5.
"""


def kernels() -> dict[str, Kernel]:
    """Every kernel for dense calls by name."""
    from pmlm_core.model.attention import plain, reference, sdpa

    return {"reference": reference.attend, "plain": plain.attend, "sdpa": sdpa.attend}


def attend(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, calls: Sequence[Call], dropout_p: float) -> Tensor:
    """Attention by the kernel that the calls were made for."""
    if calls[0].rule is not None:
        from pmlm_core.model.attention import tiled

        return tiled.attend(q_BQHE, k_BSHE, v_BSHE, calls, dropout_p)
    from pmlm_core.model.attention.choice import dense_kernel

    return kernels()[dense_kernel(q_BQHE)](q_BQHE, k_BSHE, v_BSHE, calls, dropout_p)
