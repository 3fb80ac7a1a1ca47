"""Slow and obvious versions of docs/method.md, 6's generation: nothing cached, one row at a time, plain lists.

`next_log_probabilities` encodes source, true target tokens and one `[P]` from scratch for every single token. On it
stand `greedy`, `beam_search` and `best_of_all`, which tries every sequence there is.
"""

import itertools
from collections.abc import Callable, Sequence

from oracles.pseudo_mask import Token, encode, log_probabilities
from torch import Tensor

Step = Callable[[tuple[int, ...]], Tensor]
"""Log-probabilities of the token after a beginning of the target, [V]."""


def next_log_probabilities(model, source: Sequence[int], target: Sequence[int]) -> Tensor:  # type: ignore[no-untyped-def]
    """Of the token after `target`, given a source with its [SOS] and [EOS] and without padding, [V]."""
    n, t = len(source), len(target)
    tokens = [Token(id, i, 0, "context", 0) for i, id in enumerate(source)]
    tokens += [Token(id, n + i, 1, "true", i + 1) for i, id in enumerate(target)]
    tokens.append(Token(model.config.pseudo_token_id, n + t, 1, "pseudo", t + 1))
    return log_probabilities(model, encode(model.pmlm, tokens)[-1:])[0]


def greedy(step: Step, allowed: Sequence[int], eos: int, most: int) -> tuple[list[int], list[Tensor]]:
    """The likeliest allowed token at each step, until [EOS] or `most` tokens; and what each step saw."""
    target: list[int] = []
    seen: list[Tensor] = []
    while len(target) < most and eos not in target:
        seen.append(step(tuple(target)))
        target.append(max(allowed, key=lambda v: seen[-1][v].item()))
    return target, seen


def penalised(log_probability: float, length: int, a: float) -> float:
    return log_probability / ((5 + length) / 6) ** a


def best_of_all(step: Step, allowed: Sequence[int], eos: int, most: int, a: float) -> tuple[list[int], float]:
    """The best of all targets of up to `most` tokens that end in [EOS] or are that long."""
    ordinary = [v for v in allowed if v != eos]
    targets: list[tuple[int, ...]] = []
    for length in range(most):
        targets += [(*words, eos) for words in itertools.product(ordinary, repeat=length)]
    targets += itertools.product(ordinary, repeat=most)
    scored = []
    for target in targets:
        total = sum(step(target[:i])[v].item() for i, v in enumerate(target))
        scored.append((penalised(total, len(target), a), list(target)))
    score, target = max(scored)
    return target, score


def beam_search(
    step: Step, allowed: Sequence[int], eos: int, most: int, *, beams: int, a: float, never: bool
) -> list[tuple[list[int], float]]:
    """The `beams` best finished targets and their scores, best first.

    At each step all one-token continuations of the running beams are ranked by log-probability and the best `2 * beams`
    looked at. Of these, the first `beams` may finish, by [EOS] or at `most` tokens; the best `beams` that have not
    ended in [EOS] run on. The search ends when nothing that runs can beat the worst of `beams` finished ones, were it
    to keep its log-probability and (`never`) grow to `most` tokens, or to end as it is.
    """
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, most + 1):
        grown = []
        for total, target in running:
            log_probs = step(target)
            grown += [(total + log_probs[v].item(), (*target, v)) for v in allowed]
        grown = sorted(grown, reverse=True)[: 2 * beams]
        for total, target in grown[:beams]:
            if target[-1] == eos or length == most:
                finished.append((penalised(total, length, a), target))
        finished = sorted(finished, reverse=True)[:beams]
        running = [(total, target) for total, target in grown if target[-1] != eos][:beams]
        hope = penalised(running[0][0], most if never and a > 0 else length, a)
        if len(finished) == beams and hope <= finished[-1][0]:
            break
    return [(list(target), score) for score, target in finished]
