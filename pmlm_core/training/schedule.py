"""Learning rate as a function of the step: no state, so a resumed run needs nothing but its step number."""

import math

KINDS = ("linear", "cosine", "constant")


def learning_rate(step: int, *, peak: float, kind: str, warmup_steps: int, max_steps: int) -> float:
    """Learning rate of the update that step `step` makes (counted from 0).

    It rises in equal parts to `peak` over `warmup_steps` updates, none of which is wasted on a rate of zero; then it
    stays ("constant"), falls in equal parts ("linear", the paper's) or along half a cosine, so that it would reach
    zero just after the last update.

    >>> [learning_rate(s, peak=1.0, kind="linear", warmup_steps=2, max_steps=6) for s in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    >>> [learning_rate(s, peak=1.0, kind="constant", warmup_steps=4, max_steps=6) for s in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if kind == "constant":
        return peak
    left = (max_steps - step) / max(1, max_steps - warmup_steps)
    if kind == "linear":
        return peak * left
    if kind == "cosine":
        return peak * 0.5 * (1.0 - math.cos(math.pi * left))
    raise ValueError(f"unknown schedule '{kind}'; schedules: {', '.join(KINDS)}")
