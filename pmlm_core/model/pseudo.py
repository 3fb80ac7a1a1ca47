"""The pseudo-mask layout and its visibility rule (docs/method.md, 3): the whole of it, in this one file.

A sequence is its context of N tokens (conventional masks included) followed by an appended part of A = 2K: K pseudo
masks `[P]`, then the K true tokens they stand for. Order in memory means nothing to the model, which knows a token
only by its position embedding; this one lets every layer slice instead of gather.

    n = 6, order (4,5) -> 2      context             pseudo masks   true tokens
    token                        x1 [M] x3 [M] [M] x6    [P] [P] [P]    x4 x5 x2
    position                     1   2  3   4   5  6      4   5   2      4  5  2
    step                         0   0  0   0   0  0      1   1   2      1  1  2
"""

from dataclasses import dataclass

import torch
from torch import Tensor

PADDING, CONTEXT, PSEUDO, TRUE = 0, 1, 2, 3
"""Kinds of slots. A conventional mask is CONTEXT: nothing tells it from any other context token."""


def visible(query_kind: Tensor, query_step: Tensor, key_kind: Tensor, key_step: Tensor) -> Tensor:
    """Which query may attend to which key; the four arguments broadcast against each other.

    ============================  ==============================================================================
    query                         keys it may see
    ============================  ==============================================================================
    context token                 context
    `[P]` of step i               context, true tokens of steps < i, `[P]` of step i (itself included)
    true token of step i          context, true tokens of steps <= i; never a `[P]`
    ============================  ==============================================================================

    Padding is seen by nobody; a padding query sees the context, so that its softmax has something to sum over.

    >>> kind, step = torch.tensor([CONTEXT, PSEUDO, PSEUDO, TRUE, TRUE]), torch.tensor([0, 1, 2, 1, 2])
    >>> visible(kind[:, None], step[:, None], kind, step).int()
    tensor([[1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 0, 1, 1, 0],
            [1, 0, 0, 1, 0],
            [1, 0, 0, 1, 1]], dtype=torch.int32)
    """
    to_context = key_kind == CONTEXT
    pseudo_to_own_step = (query_kind == PSEUDO) & (key_kind == PSEUDO) & (key_step == query_step)
    pseudo_to_past = (query_kind == PSEUDO) & (key_kind == TRUE) & (key_step < query_step)
    true_to_past_and_own = (query_kind == TRUE) & (key_kind == TRUE) & (key_step <= query_step)
    return to_context | pseudo_to_own_step | pseudo_to_past | true_to_past_and_own


UNSEEN = 2**30 + 1
"""Code of a key that nobody sees: odd, and no query's own."""


@dataclass(frozen=True)
class Codes:
    """The rule in three whole numbers, for kernels that have no room for a mask. int32, last dimension contiguous.

    A query sees a key whose code is even and at most its limit, or equals its own.

    ==================  ====  ==================  =====  ======
    key                 code  query               limit  own
    ==================  ====  ==================  =====  ======
    context             0     context, padding    0      -1
    true token, step i  2i    true token, step i  2i     -1
    `[P]`, step i       2i+1  `[P]`, step i       2i-1   2i+1
    padding             odd, large
    ==================  ====  ==================  =====  ======
    """

    key_BS: Tensor
    limit_BQ: Tensor
    own_BQ: Tensor

    def of(self, queries: slice, keys: slice) -> "Codes":
        """The codes of these queries over these keys."""
        return Codes(self.key_BS[:, keys], self.limit_BQ[:, queries], self.own_BQ[:, queries])

    def visible(self) -> Tensor:
        """The rule these codes stand for, [B, Q, S], bool: what a kernel computes a tile at a time."""
        key_B1S = self.key_BS[:, None, :]
        past = (key_B1S % 2 == 0) & (key_B1S <= self.limit_BQ[:, :, None])
        return past | (key_B1S == self.own_BQ[:, :, None])


def codes(kind: Tensor, step: Tensor) -> Codes:
    """`visible` in codes: of slots that are all of them queries and keys, [B, T].

    >>> kind, step = torch.tensor([[CONTEXT, PSEUDO, TRUE, PADDING]]), torch.tensor([[0, 2, 2, 0]])
    >>> made = codes(kind, step)
    >>> made.key_BS.tolist(), made.limit_BQ.tolist(), made.own_BQ.tolist()
    ([[0, 5, 4, 1073741825]], [[0, 3, 4, 0]], [[-1, 5, -1, -1]])
    """
    pseudo, true, twice = kind == PSEUDO, kind == TRUE, 2 * step
    key = torch.where(pseudo, twice + 1, torch.where(true, twice, torch.where(kind == CONTEXT, 0, UNSEEN)))
    limit = torch.where(pseudo, twice - 1, torch.where(true, twice, 0))
    own = torch.where(pseudo, twice + 1, -1)
    return Codes(*(x.to(torch.int32).contiguous() for x in (key, limit, own)))


@dataclass(frozen=True)
class Layout:
    """Kinds and steps of every slot, [B, T] with T = N + 2K."""

    kinds_BT: Tensor
    steps_BT: Tensor
    context: int  # N

    def visible_from(self, start: int, stop: int) -> Tensor:
        """The rule for the queries `start:stop` over all keys, [B, Q, T], bool."""
        return visible(
            self.kinds_BT[:, start:stop, None],
            self.steps_BT[:, start:stop, None],
            self.kinds_BT[:, None, :],
            self.steps_BT[:, None, :],
        )


def lay_out(context_mask_BN: Tensor, pseudo_steps_BK: Tensor | None) -> Layout:
    """Lay the slots of a batch out.

    Args:
        context_mask_BN: nonzero where the context holds a token.
        pseudo_steps_BK: factorization step 1, 2, … of every predicted slot, 0 for a slot that is padding; None for no
            appended part.
    """
    kinds_BN = (context_mask_BN != 0).to(torch.int64) * CONTEXT
    steps_BN = torch.zeros_like(kinds_BN)
    if pseudo_steps_BK is None:
        return Layout(kinds_BN, steps_BN, kinds_BN.shape[1])
    used_BK = (pseudo_steps_BK > 0).to(torch.int64)
    steps_BK = pseudo_steps_BK.to(torch.int64)
    return Layout(
        torch.cat([kinds_BN, used_BK * PSEUDO, used_BK * TRUE], dim=1),
        torch.cat([steps_BN, steps_BK, steps_BK], dim=1),
        kinds_BN.shape[1],
    )
