"""The one face of attention: what a layer asks for, and the choice of who computes it.

A layer's work is a short list of *calls*. In a full layer: A, the context queries over the context keys, and B, the
appended queries over everything. Call A needs no mask (context sees context), and nothing is merged: the calls share
keys, whose gradients are summed. The bias of a call carries the relative position bias and, where something is
hidden, the mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pmlm_core.model.device import eager_on_cpu


@dataclass(frozen=True)
class Call:
    """Queries `start:stop` attend to the first `keys` keys.

    Attributes:
        bias: added to the scaled scores, broadcastable to [B, H, stop - start, keys] with its first two dimensions
            possibly 1; None adds nothing.
    """

    start: int
    stop: int
    keys: int
    bias: Tensor | None


Kernel = Callable[[Tensor, Tensor, Tensor, Sequence[Call], float], Tensor]
"""kernel(q_BQHE, k_BSHE, v_BSHE, calls, dropout_p) -> out_BQHE, where the calls cover the queries in order.

`dropout_p` acts on the attention probabilities; 0 outside training. The scores are scaled by E ** -0.5.
"""


def kernels() -> dict[str, Kernel]:
    """Every kernel by name, for tests and benchmarks."""
    from pmlm_core.model.attention import plain, reference, sdpa

    return {"reference": reference.attend, "plain": plain.attend, "sdpa": sdpa.attend}


def attend(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, calls: Sequence[Call], dropout_p: float) -> Tensor:
    """Attention by the kernel that suits: `plain` on a CPU, `sdpa` elsewhere and under `torch.compile`."""
    from pmlm_core.model.attention import plain, sdpa

    kernel = plain.attend if eager_on_cpu(q_BQHE) else sdpa.attend
    return kernel(q_BQHE, k_BSHE, v_BSHE, calls, dropout_p)
