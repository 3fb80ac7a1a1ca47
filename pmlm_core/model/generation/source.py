"""The source of a generation, run once: keys and values of all its layers, which every decoding step attends to.

Sources of a batch are put flush right. The k-th key from the right is then as far from the next target position in
every row, so one row of relative bias serves the whole batch, whatever the lengths.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ModelOutput

from pmlm_core.model.attention.choice import kernel_for
from pmlm_core.model.attention.interface import attend
from pmlm_core.model.attention.plan import make_plan
from pmlm_core.model.device import product_dtype
from pmlm_core.model.inputs import as_ids, refuse_unknown
from pmlm_core.model.layer import Layer
from pmlm_core.model.pseudo import lay_out
from pmlm_core.model.transformer import PmlmModel

SOURCE_TYPE = 0
"""Segment of the source."""


@dataclass(frozen=True)
class Source:
    """What a decoding step needs to know of R sources, flush right in N columns.

    It is one object and not a tensor, so that `generate` hands it on as it is: the beams of a source share its row.

    Attributes:
        keys_RHNE, values_RHNE: one of each a layer.
        lengths_R: tokens of each source; the target's positions go on from there.
        padding_RN: where a column holds no token; None if all of them do.
        bias_HC: what is added to a score by the distance of key and query: the relative bias, and for keys to the right
            of the query the lowest number there is. The middle column is distance 0; one row for all heads if the model
            has no relative bias.
    """

    keys_RHNE: tuple[Tensor, ...]
    values_RHNE: tuple[Tensor, ...]
    lengths_R: Tensor
    padding_RN: Tensor | None
    bias_HC: Tensor

    @property
    def rows(self) -> int:
        return self.lengths_R.shape[0]


@dataclass
class SourceOutput(ModelOutput):
    """What `get_encoder()` of the model returns: `encoder_outputs` in the words of `generate`."""

    source: Source | None = None


class SourceEncoder(nn.Module):
    """The model over its context alone. It ends with the keys and values of the last layer: nobody asks for more.

    Args:
        model: whose weights are used; they are not copied.
    """

    main_input_name = "input_ids"

    def __init__(self, model: PmlmModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **others: Any,
    ) -> SourceOutput:
        """Run the sources through all layers once.

        Args:
            input_ids: `[SOS] SRC [EOS]` a row, padded on either side, [R, N].
            attention_mask: 0 where it is padding, [R, N]; without one, [PAD] counts as padding.
            token_type_ids: segments, [R, N]; None for the source's throughout.
            others: what transformers gives to every model; without effect.

        Raises:
            ValueError: a source is longer than the model's positions.
            TypeError: an argument that there is not.
        """
        refuse_unknown(others, self.forward)
        config = self.model.config
        ids_RN, kept_RN, types_RN = align(
            input_ids,
            attention_mask,
            token_type_ids,
            pad_id=config.pad_token_id,
            source_type=SOURCE_TYPE,
            right=True,
        )
        n = ids_RN.shape[1]
        lengths_R = kept_RN.sum(1)
        positions = config.max_position_embeddings
        # Only then is it worth making a GPU wait; padding may go beyond.
        if n > positions and (longest := int(lengths_R.max())) > positions:
            raise ValueError(
                f"A source is {longest} tokens long and the model has {positions} positions; cut it, or give the model "
                "more with pmlm_core.model.positions.extend_positions."
            )
        positions_RN = (torch.arange(n, device=ids_RN.device) - (n - lengths_R)[:, None]).clamp(min=0)
        hidden_RND = self.model.embeddings(ids_RN, positions_RN, types_RN)
        padded = not bool(kept_RN.all())
        relative = self.model.rel_pos_bias
        dtype = product_dtype(hidden_RND)
        calls = make_plan(
            lay_out(kept_RN, None),
            padded=padded,
            relative=relative,
            # Columns instead of positions: the distances are the same.
            reach=n,
            position_ids_BN=None,
            slot_positions_BK=None,
            read_ae=False,
            dtype=dtype,
            kernel=kernel_for(hidden_RND, dtype, config.head_size),
        ).full
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for layer in self.model.layers:
            assert isinstance(layer, Layer)
            last = len(keys) == len(self.model.layers) - 1
            *query, k_RNHE, v_RNHE = layer.project(hidden_RND, 1 if last else 0, 3)
            if not last:
                hidden_RND = layer.finish(attend(query[0], k_RNHE, v_RNHE, calls, 0.0), hidden_RND)
            keys.append(k_RNHE.transpose(1, 2).contiguous())
            values.append(v_RNHE.transpose(1, 2).contiguous())
        return SourceOutput(
            Source(
                tuple(keys),
                tuple(values),
                lengths_R,
                ~kept_RN if padded else None,
                _bias_of_the_past(self.model, n + positions, dtype),
            )
        )


def _bias_of_the_past(model: PmlmModel, reach: int, dtype: torch.dtype) -> Tensor:
    if model.rel_pos_bias is not None:
        bias_HC = model.rel_pos_bias.by_distance(reach).to(dtype).clone()
    else:
        bias_HC = torch.zeros(1, 2 * reach - 1, dtype=dtype, device=model.device)
    bias_HC[:, reach:] = torch.finfo(dtype).min
    return bias_HC


def align(
    ids_BN: Tensor,
    mask_BN: Tensor | None,
    types_BN: Tensor | None,
    *,
    pad_id: int,
    source_type: int,
    right: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask (bool) and segments of sources, pushed to the right or to the left edge; padding may be anywhere.

    >>> ids, mask, _ = align(torch.tensor([[0, 7, 2, 1]]), None, None, pad_id=1, source_type=0, right=True)
    >>> ids.tolist(), mask.tolist()
    ([[1, 0, 7, 2]], [[False, True, True, True]])
    """
    kept_BN = ids_BN != pad_id if mask_BN is None else as_ids(mask_BN, ids_BN, "attention_mask") != 0
    order_BN = torch.argsort(kept_BN.to(torch.uint8), dim=1, descending=not right, stable=True)
    if types_BN is None:
        types_BN = torch.full_like(ids_BN, source_type)
    types_BN = as_ids(types_BN, ids_BN, "token_type_ids")
    ids_BN, kept_BN, types_BN = (x.gather(1, order_BN) for x in (ids_BN, kept_BN, types_BN))
    return ids_BN, kept_BN, types_BN


def target_type(config: Any) -> int:
    """Segment of the target: 1, where the model has two."""
    return min(1, config.type_vocab_size - 1)
