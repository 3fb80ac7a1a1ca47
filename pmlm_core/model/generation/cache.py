"""Keys and values of the target tokens generated so far, of all layers in one tensor."""

import torch
from torch import Tensor

_CHUNK = 32


class TargetCache:
    """The target's past. It grows by whole chunks, so that a step writes in place instead of copying all it has.

    The pseudo mask of a step writes its key and value one place beyond the past, where the next step's true token
    overwrites them: only true tokens ever count as past.

    Attributes:
        length: true tokens held.
    """

    # What `generate` asks of a cache.
    is_compileable = False
    is_croppable = False

    def __init__(self) -> None:
        self.length = 0
        self._held: Tensor | None = None  # [layers, 2, R, H, G, room, E]: sources, heads, beams of a source, positions

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def make_room(self, total: int, shape: tuple[int, int, int, int, int], like: Tensor) -> None:
        """Have places for `total` positions.

        Args:
            shape: layers, R, H, G, E.
        """
        layers, rows, heads, beams, width = shape
        room = 0 if self._held is None else self._held.shape[5]
        if total <= room:
            return
        wider = like.new_empty(layers, 2, rows, heads, beams, -(-total // _CHUNK) * _CHUNK, width)
        if self._held is not None:
            wider[..., :room, :] = self._held
        self._held = wider

    def write(self, layer: int, k_BQHE: Tensor, v_BQHE: Tensor) -> tuple[Tensor, Tensor]:
        """Put Q new positions behind the past of a layer.

        Returns:
            Keys and values of past and new positions, [R * H * G, past + Q, E], views.
        """
        assert self._held is not None
        _, _, rows, heads, beams, _, width = self._held.shape
        new = k_BQHE.shape[1]
        both = self._held[layer]
        for part, x_BQHE in zip(both, (k_BQHE, v_BQHE), strict=True):
            part[..., self.length : self.length + new, :] = x_BQHE.view(rows, beams, new, heads, width).permute(
                0, 3, 1, 2, 4
            )
        k, v = both[..., : self.length + new, :].flatten(1, 3).unbind(0)
        return k, v

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i goes on from what row `beam_idx[i]` holds; rows are [R * G], and a beam never leaves its source."""
        if self._held is None or self.length == 0:
            return
        layers, _, rows, heads, beams, room, width = self._held.shape
        if beams == 1:
            return
        first = torch.arange(rows * heads, device=beam_idx.device).view(rows, heads, 1) * beams
        index = (first + beam_idx.view(rows, 1, beams) % beams).flatten()
        flat = self._held.view(layers * 2, rows * heads * beams, room * width)
        self._held = flat.index_select(1, index).view(self._held.shape)
