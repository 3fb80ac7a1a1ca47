"""The relative position bias: one learned number per head and bucket of distance, shared by all layers (METHOD 4)."""

import math

import torch
from torch import Tensor, nn


def bucket(distance: Tensor, bins: int, max_distance: int) -> Tensor:
    """T5's bidirectional bucket of each distance, key position minus query position; int64.

    Half of the bins are for keys to the right. Of each half, the first half hold one distance each, the others grow
    logarithmically up to `max_distance`, from where all distances share the last.

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
