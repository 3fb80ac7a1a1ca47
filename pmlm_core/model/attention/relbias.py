"""The relative position bias: a learned number per head and bucket of distance, for all layers (docs/method.md, 4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pmlm_core.model.attention.layer_sums import BinSums


def bucket(distance: Tensor, bins: int, max_distance: int) -> Tensor:
    """T5's bidirectional bucket of each distance, key position minus query position; int64.

    Half of the bins are for keys to the right. Of each half, the first half hold one distance each, the others grow
    logarithmically towards `max_distance`; the last begins before it and holds all larger ones (`first_of_last_bin`).

    Source: Raffel et al. 2020, as in the public T5 code; float32 like there, so that the edges fall alike.

    >>> bucket(torch.tensor([-200, -1, 0, 1, 8, 200]), 32, 128).tolist()
    [15, 1, 0, 17, 24, 31]
    """
    half = bins // 2
    exact = half // 2
    size = distance.abs()
    growth = torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    large = (exact + (growth * (half - exact)).to(torch.int64)).clamp(max=half - 1)
    return torch.where(distance > 0, half, 0) + torch.where(size < exact, size, large)


@cache
def first_of_last_bin(bins: int, max_distance: int) -> int:
    """From which distance on, either way, all lie in one bin.

    >>> first_of_last_bin(32, 128)
    91
    """
    distances = torch.arange(max_distance + 1)
    return int(torch.searchsorted(bucket(-distances, bins, max_distance), bins // 2 - 1))


@dataclass(frozen=True)
class BinParts:
    """What adds up to the gradient of a bias by bin, of one call of one layer.

    Attributes:
        near_PH2M: of every bin two sums over P parts of the scores: of the gradients at or beyond its edge in tiles
            that begin before it, and of all those in tiles that begin in it; float32, with room for more bins.
        far_PH2: where given, the gradients of the first bin and the last, which `near_PH2M` has not.
    """

    near_PH2M: Tensor
    far_PH2: Tensor | None


def by_bin(parts: Sequence[BinParts], bins: int) -> Tensor:
    """The gradient of each bin's bias, [H, M], float32."""
    made = []
    for with_far in (True, False):
        some = [each for each in parts if (each.far_PH2 is not None) == with_far]
        if not some:
            continue
        beyond_HM, everything_HM = _total([each.near_PH2M for each in some])[..., :bins].unbind(1)
        sums_HM = beyond_HM + everything_HM
        # What lies beyond the next edge is the next bin's.
        sums_HM[:, :-1] -= beyond_HM[:, 1:]
        if with_far:
            far_H2 = _total([each.far_PH2 for each in some if each.far_PH2 is not None])
            sums_HM[:, 0], sums_HM[:, -1] = far_H2.unbind(1)
        made.append(sums_HM)
    return made[0] if len(made) == 1 else made[0] + made[1]


def _total(parts: Sequence[Tensor]) -> Tensor:
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).sum(0)


TILE_ROOM = 256
"""So many positions beyond the last a tile of scores may hang over."""


@dataclass(frozen=True)
class ByDistance:
    """The bias as a function of distance, its bins in the order in which they are met from left to right.

    In this order bins never fall with distance, so those of a tile of scores are a range; far tiles lie in one bin.
    The distances reach beyond those of the positions, so that tiles may hang over.

    Attributes:
        weight_HM: a bin's bias, float32; a gradient goes back through it.
        table_HC: bias at the distances 1 - reach … reach - 1, for scores to the base 2: times log2(e); float32, no
            gradient.
        bin_C: bin of each distance, int32.
        edge_M: least distance of each bin, int32; of a bin that is empty, that of the next.
        far: every distance of at least so much lies in the last bin, and the other way in the first.
        sums: where layers leave the parts of the gradient, instead of returning it.
    """

    weight_HM: Tensor
    table_HC: Tensor
    bin_C: Tensor
    edge_M: Tensor
    far: int
    sums: "BinSums | None" = None

    @property
    def reach(self) -> int:
        return self.bin_C.shape[0] // 2 + 1


class RelativeBias(nn.Module):
    """The table [H, bins] and its square form, which everything else is gathered from."""

    def __init__(self, heads: int, bins: int, max_distance: int) -> None:
        super().__init__()
        self.bins, self.max_distance = bins, max_distance
        self.weight = nn.Parameter(torch.zeros(heads, bins))

    def by_distance(self, reach: int) -> Tensor:
        """Bias at the distances 1 - reach … reach - 1, key position minus query position, [H, 2 * reach - 1]."""
        distances = torch.arange(1 - reach, reach, device=self.weight.device)
        return self.weight[:, bucket(distances, self.bins, self.max_distance)]

    def square(self, reach: int) -> Tensor:
        """Bias between every two positions below `reach`, [H, reach, reach], query first.

        The square is cut from the 2 * reach - 1 values by distance, so its gradient comes back along diagonals: once
        a step, whatever the number of layers and rows.
        """
        # Window w holds the distances w + 1 - reach … w: the row of the query at position reach - 1 - w.
        return self.by_distance(reach).unfold(1, reach, 1).flip(1)

    def in_order(self, reach: int) -> ByDistance:
        """The table for kernels that look it up score by score, for positions below `reach`."""
        device, half = self.weight.device, self.bins // 2
        reach += TILE_ROOM
        # T5 counts the bins to the left from the middle outwards.
        order_M = torch.arange(self.bins, device=device)
        order_M = torch.where(order_M < half, half - 1 - order_M, order_M)
        weight_HM = self.weight.float().index_select(1, order_M)
        # The order is its own inverse.
        bin_C = order_M[bucket(torch.arange(1 - reach, reach, device=device), self.bins, self.max_distance)]
        edge_M = torch.searchsorted(bin_C, torch.arange(self.bins, device=device)) + (1 - reach)
        table_HC = (weight_HM.detach() * math.log2(math.e))[:, bin_C].contiguous()
        far = first_of_last_bin(self.bins, self.max_distance)
        return ByDistance(weight_HM, table_HC, bin_C.to(torch.int32), edge_M.to(torch.int32), far)
