"""The relative position bias: a learned number per head and bucket of distance, for all layers (docs/method.md, 4)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn


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
    """

    weight_HM: Tensor
    table_HC: Tensor
    bin_C: Tensor
    edge_M: Tensor
    far: int

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
