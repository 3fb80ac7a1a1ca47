"""From calls and tensors to the kernels' arguments, and the launches of the backward kernels."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from pmlm_core.model.attention.interface import Call, Rule
from pmlm_core.model.attention.tiled.bias import bias_gradient_by_row, bias_gradient_shared
from pmlm_core.model.attention.tiled.keys import keys_gradient
from pmlm_core.model.attention.tiled.queries import queries_gradient
from pmlm_core.model.attention.tiled.sizes import Tile, tile

_PROGRAMS = 512
"""So many at least when the bias is summed over the batch, to keep a large GPU busy."""


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


class Backward:
    """What a call's backward kernels read, and the kernels on it."""

    def __init__(
        self,
        call: Call,
        q_BQHE: Tensor,
        k_BSHE: Tensor,
        v_BSHE: Tensor,
        grad_BQHE: Tensor,
        lse_BHT: Tensor,
        delta_BHT: Tensor,
        random: Tensor,
        dropout_p: float,
    ) -> None:
        self.call, self.dropout_p, self.random = call, dropout_p, random
        self.read = (q_BQHE, k_BSHE, v_BSHE, grad_BQHE)
        self.rows = (lse_BHT, delta_BHT)
        self.lines = (lse_BHT.shape[2], random.shape[2])
        self.strides = (*strides(q_BQHE), *strides(k_BSHE), *strides(grad_BQHE))
        self.batch, self.queries, self.heads, self.width = q_BQHE.shape

    def _given(self, kernel: str) -> Given:
        size = tile(kernel, self.width, self.read[0].dtype)
        return Given(self.call, self.read[0], size, self.dropout_p)

    def keys_gradient(self, k_grad_BSHE: Tensor, v_grad_BSHE: Tensor, add: bool) -> None:
        given = self._given("keys")
        for keys in given.segments():
            keys_gradient[(triton.cdiv(keys.end - keys.begin, given.size.keys) * self.batch * self.heads,)](
                *self._arguments(given, k_grad_BSHE, v_grad_BSHE),
                keys.begin,
                keys.end,
                *self._numbers(given),
                **given.has_bias,
                **given.q_places,
                **keys.options,
                **given.options,
                Q_RAGGED=self.queries % given.size.queries != 0,
                ADD=add,
            )

    def queries_gradient(self, q_grad_BQHE: Tensor) -> None:
        given = self._given("queries")
        queries_gradient[(triton.cdiv(self.queries, given.size.queries) * self.batch * self.heads,)](
            *self._arguments(given, q_grad_BQHE),
            given.rule.plain,
            *self._numbers(given),
            **given.has_bias,
            **given.q_places,
            **given.both(),
            **given.options,
        )

    def _arguments(self, given: Given, *made: Tensor) -> tuple[Any, ...]:
        return (
            *self.read,
            *made,
            *self.rows,
            given.table,
            *given.places,
            *given.codes,
            self.random,
            *self.strides,
            *strides(made[0]),
            *self.lines,
            *given.code_strides,
            given.start,
            given.queries,
        )

    def _numbers(self, given: Given) -> tuple[Any, ...]:
        return (given.keys, self.heads, given.reach, given.far, given.scale, given.score_scale, *given.dropout)

    def bias_gradient(self) -> Tensor:
        """Gradient of the bias of each bin, [H, M], float32."""
        bias = rule_of(self.call).bias
        assert bias is not None
        bins = bias.weight_HM.shape[1]
        room = triton.next_power_of_2(bins)
        shared = rule_of(self.call).queries is None and rule_of(self.call).keys is None
        given = self._given("bias_shared" if shared else "bias_by_row")
        q_tiles = triton.cdiv(self.queries, given.size.queries)
        before = (*self.rows, bias.table_HC, bias.bin_C, bias.edge_M)
        after = (*self.strides, *self.lines, *given.code_strides, given.start, given.queries, given.keys)
        numbers = (given.reach, given.far, given.scale, *given.dropout)
        hiding = {"CODES": given.of_keys["CODES"], "RAGGED": given.keys % given.size.keys != 0}
        options = {"BINS": room, **hiding, **given.options}
        if shared:
            tiles = q_tiles * triton.cdiv(self.call.keys, given.size.keys)
            groups = min(self.batch, triton.cdiv(_PROGRAMS, tiles * self.heads))
            part = self.rows[0].new_empty(tiles, self.heads, groups, 2, room)
            bias_gradient_shared[(tiles, self.heads * groups)](
                *self.read,
                part,
                *before,
                *given.codes,
                self.random,
                *after,
                self.batch,
                self.heads,
                groups,
                *numbers,
                **options,
            )
            return by_bin(part.sum((0, 2)))[:, :bins]
        part = self.rows[0].new_empty(self.batch, self.heads, q_tiles, 2, room)
        places = {**given.q_places, "K_PLACES": given.of_keys["K_PLACES"]}
        bias_gradient_by_row[(q_tiles * self.batch * self.heads,)](
            *self.read,
            part,
            *before,
            *given.places,
            *given.orders,
            *given.codes,
            self.random,
            *after,
            self.heads,
            *numbers,
            **options,
            **places,
        )
        return by_bin(part.sum((0, 2)))[:, :bins]


def by_bin(sums_H2M: Tensor) -> Tensor:
    """Sums of each bin, [H, M], from the two that `bins.binned` makes: what lies beyond the next edge is the next's."""
    beyond_HM, everything_HM = sums_H2M.unbind(1)
    sums_HM = beyond_HM + everything_HM
    sums_HM[:, :-1] -= beyond_HM[:, 1:]
    return sums_HM


def _native() -> bool:
    """Whether kernels may hold instructions of an NVIDIA GPU: not in the interpreter, nor on another maker's."""
    return isinstance(keys_gradient, triton.runtime.JITFunction) and torch.version.hip is None


def _precision(dtype: torch.dtype) -> str:
    """How products of float32 are computed: only NVIDIA's have TF32, and half types need no word of it."""
    if dtype != torch.float32 or torch.version.hip is not None:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
