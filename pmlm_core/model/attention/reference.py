"""Attention as the formula is written: dense, any precision, to hold the fast kernels against."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pmlm_core.model.attention.interface import Call


def attend(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, calls: Sequence[Call], dropout_p: float) -> Tensor:
    """See `interface.Kernel`."""
    outputs = []
    for call in calls:
        q, k, v = q_BQHE[:, call.start : call.stop], k_BSHE[:, : call.keys], v_BSHE[:, : call.keys]
        scores_BHQS = torch.einsum("bqhe,bshe->bhqs", q, k) * q.shape[-1] ** -0.5
        if call.bias is not None:
            scores_BHQS = scores_BHQS + call.bias
        weights_BHQS = torch.dropout(torch.softmax(scores_BHQS, dim=-1), dropout_p, dropout_p > 0)
        outputs.append(torch.einsum("bhqs,bshe->bqhe", weights_BHQS, v))
    return torch.cat(outputs, dim=1)


def dense(call: Call, batch: int) -> Call:
    """A structured call as a dense one, for float32 or more; the bias may require a gradient."""
    rule = call.rule
    assert rule is not None
    device = rule.bias.bin_C.device if rule.bias else rule.codes.key_BS.device if rule.codes else None
    places = ((rule.queries, call.stop - call.start), (rule.keys, call.keys))
    query_BQ, key_BS = (torch.arange(n, device=device).expand(batch, n) if at is None else at.at_BL for at, n in places)
    bias: Tensor | None = None
    if rule.bias is not None:
        distance_BQS = key_BS[:, None, :] - query_BQ[:, :, None]
        bin_BQS = rule.bias.bin_C[distance_BQS.long() + rule.bias.reach - 1].long()
        bias = rule.bias.weight_HM[:, bin_BQS].transpose(0, 1)
    if rule.codes is not None:
        hidden_B1QS = ~rule.codes.visible()[:, None]
        bias = torch.zeros(hidden_B1QS.shape, device=device) if bias is None else bias
        bias = bias.masked_fill(hidden_B1QS, torch.finfo(bias.dtype).min)
    return Call(call.start, call.stop, call.keys, bias)
