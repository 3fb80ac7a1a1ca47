"""The launches of the backward kernels."""

from typing import Any

import triton
from torch import Tensor

from pmlm_core.model.attention.interface import Call
from pmlm_core.model.attention.relbias import BinParts, ByDistance
from pmlm_core.model.attention.tiled.bias_by_row import bias_gradient_by_row
from pmlm_core.model.attention.tiled.bias_shared import bias_gradient_shared
from pmlm_core.model.attention.tiled.keys import keys_gradient
from pmlm_core.model.attention.tiled.launch import Given, rule_of, strides
from pmlm_core.model.attention.tiled.queries import queries_gradient
from pmlm_core.model.attention.tiled.sizes import tile

_PROGRAMS = 512
"""So many at least when the bias is summed over the batch, to keep a large GPU busy."""


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

    def keys_gradient(self, k_grad_BSHE: Tensor, v_grad_BSHE: Tensor, add: bool, more: "Backward | None") -> None:
        """Write the gradients of keys and values, or `add` to them.

        Args:
            more: another call, over the plain keys alone, whose part of the same gradients comes with it.
        """
        given = self._given("keys")
        for keys in given.segments():
            plain = keys.end == given.rule.plain
            other = more if plain and more is not None else None
            start, queries = (other.call.start, other.queries) if other else (0, 0)
            there = None if other is None else rule_of(other.call).queries
            keys_gradient[(triton.cdiv(keys.end - keys.begin, given.size.keys) * self.batch * self.heads,)](
                *self._arguments(given, k_grad_BSHE, v_grad_BSHE, last=self.read[0] if there is None else there.at_BL),
                start,
                queries,
                keys.begin,
                keys.end,
                *self._numbers(given),
                **given.has_bias,
                **given.q_places,
                **keys.options,
                **given.options,
                Q_RAGGED=self.queries % given.size.queries != 0,
                ADD=add,
                MORE=other is not None,
                MORE_PLACES=there is not None,
                MORE_RAGGED=queries % given.size.queries != 0,
            )

    def only_plain(self, like: "Backward") -> bool:
        """Whether the keys are all plain, and all of another call's plain ones."""
        return self.call.keys == rule_of(self.call).plain == rule_of(like.call).plain

    def queries_gradient(self, q_grad_BQHE: Tensor, far: bool = False) -> Tensor | None:
        """Write the gradient of the queries; if `far`, parts of the gradients of the bias' first bin and last are made
        on the way, [P, H, 2], float32."""
        given = self._given("queries")
        q_tiles = triton.cdiv(self.queries, given.size.queries)
        part = self.rows[0].new_empty(self.batch * q_tiles, self.heads, 2) if far else self.rows[0]
        queries_gradient[(q_tiles * self.batch * self.heads,)](
            *self._arguments(given, q_grad_BQHE, last=part),
            given.rule.plain,
            *self._numbers(given),
            **given.has_bias,
            FAR=far,
            **given.q_places,
            **given.both(),
            **given.options,
        )
        return part if far else None

    def bias_gradient(self, q_grad_BQHE: Tensor) -> BinParts:
        """Parts of the gradient of the bias by bin; that of the queries is written too."""
        rule = rule_of(self.call)
        if rule.queries is None and rule.keys is None:
            far = self.queries_gradient(q_grad_BQHE, far=True)
            return BinParts(self._summed_over_rows(), far)
        return BinParts(self._row_by_row(q_grad_BQHE), None)

    def _summed_over_rows(self) -> Tensor:
        """[P, H, 2, room for bins]; in the first bin and the last much is missing."""
        given, bias, room, options = self._of_bias("bias_shared")
        tiles = triton.cdiv(self.queries, given.size.queries) * triton.cdiv(self.call.keys, given.size.keys)
        groups = min(self.batch, triton.cdiv(_PROGRAMS, tiles * self.heads))
        part = self.rows[0].new_empty(tiles * groups, self.heads, 2, room)
        bias_gradient_shared[(tiles, self.heads * groups)](
            *self.read,
            part,
            *self.rows,
            bias.table_HC,
            bias.bin_C,
            bias.edge_M,
            *given.codes,
            self.random,
            *self.strides,
            *self.lines,
            *given.code_strides,
            given.start,
            given.queries,
            given.keys,
            self.batch,
            self.heads,
            groups,
            given.reach,
            given.far,
            given.scale,
            *given.dropout,
            **options,
        )
        return part

    def _row_by_row(self, q_grad_BQHE: Tensor) -> Tensor:
        given, bias, room, options = self._of_bias("bias_by_row")
        q_tiles = triton.cdiv(self.queries, given.size.queries)
        part = self.rows[0].new_empty(self.batch * q_tiles, self.heads, 2, room)
        bias_gradient_by_row[(q_tiles * self.batch * self.heads,)](
            *self.read,
            q_grad_BQHE,
            part,
            *self.rows,
            bias.table_HC,
            bias.bin_C,
            bias.edge_M,
            *given.places,
            *given.orders,
            *given.codes,
            self.random,
            *self.strides,
            *strides(q_grad_BQHE),
            *self.lines,
            *given.code_strides,
            given.start,
            given.queries,
            *self._numbers(given),
            **options,
            **given.q_places,
            K_PLACES=given.of_keys["K_PLACES"],
        )
        return part

    def _of_bias(self, kernel: str) -> tuple[Given, ByDistance, int, dict[str, Any]]:
        """For a kernel that sums by bin: arguments, bias, room for its bins, and what it is compiled for."""
        given, bias = self._given(kernel), rule_of(self.call).bias
        assert bias is not None
        room = triton.next_power_of_2(bias.weight_HM.shape[1])
        ragged = given.keys % given.size.keys != 0
        return given, bias, room, {"BINS": room, "CODES": given.of_keys["CODES"], "RAGGED": ragged, **given.options}

    def _arguments(self, given: Given, *made: Tensor, last: Tensor) -> tuple[Any, ...]:
        return (
            *self.read,
            *made,
            *self.rows,
            given.table,
            *given.places,
            *given.codes,
            self.random,
            last,
            *self.strides,
            *strides(made[0]),
            *self.lines,
            *given.code_strides,
            given.start,
            given.queries,
        )

    def _numbers(self, given: Given) -> tuple[Any, ...]:
        return (given.keys, self.heads, given.reach, given.far, given.scale, given.score_scale, *given.dropout)
