"""From calls and tensors to the kernels' arguments."""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from pmlm_core.model.attention.interface import Call, Rule
from pmlm_core.model.attention.tiled.keys import keys_gradient
from pmlm_core.model.attention.tiled.sizes import Tile


def rule_of(call: Call) -> Rule:
    assert call.rule is not None
    return call.rule


def strides(x_BLHE: Tensor) -> tuple[int, ...]:
    """Of the row of the batch, the position and the head; the numbers of a head lie side by side."""
    return x_BLHE.stride()[:3]


@dataclass(frozen=True)
class Segment:
    """The keys from `begin` to before `end`, with what a kernel is compiled for."""

    begin: int
    end: int
    options: dict[str, bool]


class Given:
    """A rule as the kernels' arguments; tensors that a rule lacks are stood in for by one that nobody reads."""

    def __init__(self, call: Call, like: Tensor, size: Tile, dropout_p: float) -> None:
        rule = rule_of(call)
        bias, codes = rule.bias, rule.codes
        self.rule, self.size, self.call = rule, size, call
        self.table = like if bias is None else bias.table_HC
        self.reach, self.far = (1, 1) if bias is None else (bias.reach, bias.far)
        places = [rule.queries, rule.keys]
        self.places = [like if place is None else place.at_BL for place in places]
        self.orders = [like if place is None else place.order_BL for place in places]
        self.codes = [like] * 3 if codes is None else [codes.key_BS, codes.limit_BQ, codes.own_BQ]
        self.code_strides = [0, 0] if codes is None else [codes.key_BS.stride(0), codes.limit_BQ.stride(0)]
        self.start, self.queries, self.keys = call.start, call.stop - call.start, call.keys
        self.score_scale = like.shape[-1] ** -0.5
        self.scale = self.score_scale * math.log2(math.e)
        # Below it a number of 32 bits, with its sign, drops its score.
        self.dropout = (min(round(dropout_p * 2**32) - 2**31, 2**31 - 1), 1 / (1 - dropout_p))
        self.q_places = {"Q_PLACES": rule.queries is not None}
        self.of_keys = {"K_PLACES": rule.keys is not None, "CODES": codes is not None}
        self.options = {
            "WIDTH": like.shape[-1],
            "DROPOUT": dropout_p > 0,
            "PRECISION": _precision(like.dtype),
            "NATIVE": _native(),
            "BLOCK_Q": size.queries,
            "BLOCK_K": size.keys,
            "num_warps": size.warps,
            "num_stages": size.stages,
        }
        if size.registers is not None and _native():
            self.options["maxnreg"] = size.registers
        self.has_bias = {"BIAS": bias is not None}

    def both(self) -> dict[str, bool]:
        """Options of a kernel that goes through plain keys, then the rest."""
        plain, rest = self.rule.plain, self.keys - self.rule.plain
        return {
            **self.of_keys,
            "PLAIN": plain > 0,
            "PLAIN_RAGGED": plain % self.size.keys != 0,
            "REST": rest > 0,
            "REST_RAGGED": rest % self.size.keys != 0,
        }

    def segments(self) -> list[Segment]:
        """The same keys one kind after the other, for a kernel whose programs have keys of one kind."""
        plain, made = self.rule.plain, []
        for begin, end, of_keys in ((0, plain, dict.fromkeys(self.of_keys, False)), (plain, self.keys, self.of_keys)):
            if end > begin:
                ragged = (end - begin) % self.size.keys != 0
                made.append(Segment(begin, end, {**of_keys, "RAGGED": ragged}))
        return made


def _native() -> bool:
    """Whether kernels may hold instructions of an NVIDIA GPU: not in the interpreter, nor on another maker's."""
    return isinstance(keys_gradient, triton.runtime.JITFunction) and torch.version.hip is None


def _precision(dtype: torch.dtype) -> str:
    """How products of float32 are computed: only NVIDIA's have TF32, and half types need no word of it."""
    if dtype != torch.float32 or torch.version.hip is not None:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
