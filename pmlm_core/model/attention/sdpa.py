"""Attention by torch's scaled_dot_product_attention, for GPUs: the learnable bias goes in as a float mask.

A mask that requires a gradient leaves the memory-efficient and the math backend; cuDNN is kept out by name, since it
gives NaN gradients with a mask at some key lengths (pytorch #196678) and misreads an fp32 mask with bf16 queries
(#191612).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from pmlm_core.model.attention.interface import Call

_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, calls: Sequence[Call], dropout_p: float) -> Tensor:
    """See `interface.Kernel`."""
    q_BHQE, k_BHSE, v_BHSE = q_BQHE.transpose(1, 2), k_BSHE.transpose(1, 2), v_BSHE.transpose(1, 2)
    outputs = []
    with sdpa_kernel(_BACKENDS):
        for call in calls:
            bias = call.bias
            if bias is not None:
                shape = (q_BHQE.shape[0], q_BHQE.shape[1], call.stop - call.start, call.keys)
                bias = bias.to(q_BQHE.dtype).expand(shape)
            outputs.append(
                scaled_dot_product_attention(
                    q_BHQE[:, :, call.start : call.stop],
                    k_BHSE[:, :, : call.keys],
                    v_BHSE[:, :, : call.keys],
                    attn_mask=bias,
                    dropout_p=dropout_p,
                )
            )
    return torch.cat(outputs, dim=2).transpose(1, 2)
