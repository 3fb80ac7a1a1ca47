"""One decoding step: the new true tokens and one `[P]` over the source and the target's past (docs/method.md, 6).

The visibility rule of section 3 with one token a step, left to right, is plain causal attention when the `[P]` stands
behind the true tokens: it sees all of them and itself, and none of them sees it.
"""

import torch
from torch import Tensor

from pmlm_core.model.generation.cache import TargetCache
from pmlm_core.model.generation.source import Source, target_type
from pmlm_core.model.layer import Layer
from pmlm_core.model.transformer import PmlmModel


@torch.no_grad()
def pseudo_state(model: PmlmModel, source: Source, target_BT: Tensor, cache: TargetCache) -> Tensor:
    """The `[P]` that stands for the token after `target_BT`: its state after the last layer, [B, D].

    Args:
        target_BT: all true tokens so far, G rows a source, the rows of a source beside each other; T may be 0.
        cache: the past of the first `cache.length` of them; afterwards, of all.
    """
    config, layers = model.config, model.layers
    rows, beams = source.rows, target_BT.shape[0] // source.rows
    total, past = target_BT.shape[1] + 1, cache.length
    pseudo_B1 = target_BT.new_full((target_BT.shape[0], 1), config.pseudo_token_id)
    ids_BQ = torch.cat([target_BT[:, past:], pseudo_B1], dim=1)
    lengths_B1 = source.lengths_R.repeat_interleave(beams)[:, None]
    positions_BQ = lengths_B1 + torch.arange(past, total, device=ids_BQ.device)
    queries_BQD = model.embeddings(ids_BQ, positions_BQ, torch.full_like(ids_BQ, target_type(config)))

    shape = (len(layers), rows, config.num_attention_heads, beams, config.head_size)
    cache.make_room(total, shape, like=source.keys_RHNE[0])
    bias = _bias(source, past, total, shape)
    for index, layer in enumerate(layers):
        assert isinstance(layer, Layer)
        if index == len(layers) - 1 and total - past > 1:
            # Of the true tokens the last layer owes keys and values only.
            k_BQHE, v_BQHE = layer.project(queries_BQD, 1, 3)
            queries_BQD = queries_BQD[:, -1:]
            (q_BQHE,) = layer.project(queries_BQD, 0, 1)
            bias = _bias(source, total - 1, total, shape)
        else:
            q_BQHE, k_BQHE, v_BQHE = layer.project(queries_BQD, 0, 3)
        own = cache.write(index, k_BQHE, v_BQHE)
        mixed_BQHE = _attend(q_BQHE, source.keys_RHNE[index], source.values_RHNE[index], *own, *bias)
        queries_BQD = layer.finish(mixed_BQHE, queries_BQD)
    cache.length = total - 1
    return queries_BQD[:, -1]


def _bias(source: Source, start: int, total: int, shape: tuple[int, int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Bias of the target queries `start … total - 1`: to the source's keys [R * H, G * Q, N], and to the target's."""
    _, rows, heads, beams, _ = shape
    n, queries = source.keys_RHNE[0].shape[2], total - start
    middle, keys = source.bias_HC.shape[1] // 2, n + total
    # Window w of the cut belongs to the query at total - 1 - w, which stands n + that far from the first key.
    cut_HC = source.bias_HC[:, middle - keys + 1 : middle - keys + 1 + keys + queries - 1]
    bias_HQS = cut_HC.unfold(1, keys, 1).flip(1)
    to_source = bias_HQS[None, :, None, :, :n].expand(rows, heads, beams, queries, n)
    if source.padding_RN is not None:
        hidden = source.padding_RN[:, None, None, None, :]
        to_source = to_source.masked_fill(hidden, torch.finfo(to_source.dtype).min)
    to_target = bias_HQS[None, :, None, :, n:].expand(rows, heads, beams, queries, total)
    return to_source.reshape(rows * heads, beams * queries, n), to_target.reshape(-1, queries, total)


def _attend(
    q_BQHE: Tensor,
    source_k_RHNE: Tensor,
    source_v_RHNE: Tensor,
    own_k: Tensor,
    own_v: Tensor,
    to_source: Tensor,
    to_target: Tensor,
) -> Tensor:
    """Attention over two sets of keys: the source's, read once for all beams of a row, and each row's own."""
    rows, heads, n, width = source_k_RHNE.shape
    batch, queries = q_BQHE.shape[:2]
    beams, scale = batch // rows, width**-0.5
    q = q_BQHE.view(rows, beams, queries, heads, width).permute(0, 3, 1, 2, 4).reshape(-1, queries, width)
    by_source = q.view(rows * heads, beams * queries, width)
    source_k, source_v = source_k_RHNE.flatten(0, 1), source_v_RHNE.flatten(0, 1)
    scores = torch.cat(
        [
            torch.baddbmm(to_source, by_source, source_k.transpose(1, 2), alpha=scale).view(*q.shape[:2], n),
            torch.baddbmm(to_target, q, own_k.transpose(1, 2), alpha=scale),
        ],
        dim=2,
    )
    # Autocast makes fp32 of a GPU's softmax unless it is told otherwise, and leaves in-place products to their types.
    weights = torch.softmax(scores, dim=-1, dtype=scores.dtype)
    of_source = weights.view(rows * heads, beams * queries, -1)[:, :, :n]
    mixed = torch.bmm(of_source, source_v).view_as(q).baddbmm_(weights[:, :, n:], own_v)
    return mixed.view(rows, heads, beams, queries, width).permute(0, 2, 3, 1, 4).reshape(batch, queries, heads, width)
