"""Attention as the formula is written: dense, any precision, for tests to hold the fast kernels against."""

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
