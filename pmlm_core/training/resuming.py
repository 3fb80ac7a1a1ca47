"""What a training that goes on keeps of how it was computed before, and what it says of the rest."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pmlm_core.errors import CheckpointError
from pmlm_core.training import checkpoint

COMPUTED_BY = "computed_by"
"""Under this name checkpoints tell what the last bits of the figures depend on besides options and data."""
_DRAWS_DROPOUT = frozenset({"micro_batch_size", "use_gpu", "torch_compile", "attention", "layer"})
_ALWAYS_BEFORE = {"layer": "torch"}
"""Of checkpoints that do not say it yet."""


def micro_batch_before(root: Path, batch_size: int, *, use_gpu: bool) -> int | None:
    """Rows of a forward pass by the newest checkpoint below `root`; None if there is none, or it does not matter.

    It is kept where nobody asks for another, since every micro-batch draws its own dropout. On another kind of
    processor dropout is another anyway, and what suits the caches of a CPU keeps no GPU busy; with another batch size
    (of a population, members of which copy each other) all is.
    """
    for folder in reversed(checkpoint.all_steps(root)):
        with suppress(CheckpointError):  # a damaged one: the workers say so
            before = checkpoint.read_state(folder).get(COMPUTED_BY, {})
            rows = before.get("micro_batch_size")
            return rows if rows and batch_size % rows == 0 and before.get("use_gpu") == use_gpu else None
    return None


def computed_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A warning if a run goes on otherwise than its checkpoint was computed, or None.

    >>> computed_otherwise({"num_workers": 2}, {"num_workers": 2, "attention": "plain"})
    >>> print(computed_otherwise({"num_workers": 2}, {"num_workers": 1}))
    the same rows follow, but figures will differ in the last digits from an uninterrupted run: num_workers was 2, is 1
    """
    known = {**_ALWAYS_BEFORE, **before} if before else {}
    changed = {name: f"{name} was {was}, is {now[name]}" for name, was in known.items() if now.get(name, was) != was}
    if not changed:
        return None
    masks = not changed.keys().isdisjoint(_DRAWS_DROPOUT)
    how = "with other dropout, so figures will differ" if masks else "but figures will differ in the last digits"
    return f"the same rows follow, {how} from an uninterrupted run: {'; '.join(changed.values())}"
