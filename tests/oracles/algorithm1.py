"""Algorithm 1 as docs/method.md, 2 words it: draw, accept or discard, until the budget is met. And its exact law."""

import math
from random import Random

Step = tuple[int, int]  # start, length


def budget(maskable: list[bool], mask_prob: float) -> int:
    """Least number of masked positions that is at least `mask_prob` of the maskable ones."""
    return math.ceil(round(mask_prob * sum(maskable), 9))


def legal(block: Step, free: list[bool]) -> bool:
    start, length = block
    return start + length <= len(free) and all(free[start : start + length])


def mask(
    maskable: list[bool], random: Random, mask_prob: float, block_prob: float, min_block: int, max_block: int
) -> list[Step]:
    """Steps of one text, in the order drawn. The start is drawn among the maskable positions."""
    free = list(maskable)
    candidates = [i for i, ok in enumerate(maskable) if ok]
    steps: list[Step] = []
    while sum(length for _, length in steps) < budget(maskable, mask_prob):
        start = random.choice(candidates)
        length = random.randint(min_block, max_block) if random.random() < block_prob else 1
        if legal((start, length), free):
            steps.append((start, length))
            free[start : start + length] = [False] * length
    return steps


def law(
    maskable: list[bool], mask_prob: float, block_prob: float, min_block: int, max_block: int
) -> dict[tuple[Step, ...], float]:
    """Probability of every possible outcome: discarding draws means drawing among the legal blocks, by weight."""
    weights: dict[int, float] = {1: 1 - block_prob}
    for length in range(min_block, max_block + 1):
        weights[length] = weights.get(length, 0.0) + block_prob / (max_block - min_block + 1)
    need = budget(maskable, mask_prob)
    outcomes: dict[tuple[Step, ...], float] = {}

    def go_on(steps: tuple[Step, ...], free: list[bool], probability: float) -> None:
        if sum(length for _, length in steps) >= need:
            outcomes[steps] = probability
            return
        choices = {
            (start, length): weight
            for length, weight in weights.items()
            for start in range(len(free))
            if weight and legal((start, length), free)
        }
        total = sum(choices.values())
        for (start, length), weight in choices.items():
            rest = [ok and not start <= i < start + length for i, ok in enumerate(free)]
            go_on((*steps, (start, length)), rest, probability * weight / total)

    go_on((), list(maskable), 1.0)
    return outcomes
