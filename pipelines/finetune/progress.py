"""The lines that fine-tuning shows: loss, accuracy, learning rate, scores of an epoch, time left."""

from collections.abc import Callable
from typing import Any

from pipelines.follow import Follower
from pipelines.run_folder import RunDir
from pipelines.tracking.journal import Entry


class Progress(Follower):
    """Follows one seed."""

    def __init__(self, run: RunDir, seed: int, max_steps: int, per_epoch: int, ship: Callable[[int], None]) -> None:
        self._seed, self._per_epoch = seed, per_epoch
        super().__init__(run, max_steps, ship)

    def _line(self, entry: Entry) -> str:
        figures = entry.metrics
        start = f"seed {self._seed}  step {entry.step}/{self._max_steps}"
        if "train/loss" in figures:
            parts = [start, f"epoch {figures.get('epoch', 0.0):.2f}", f"loss {figures['train/loss']:.4f}"]
            if "train/accuracy" in figures:
                parts.append(f"{figures['train/accuracy']:.1%} right")
            parts.append(f"lr {figures['learning_rate']:.2e}")
            if left := self._left(entry):
                parts.append(f"{left} left")
            self._previous = entry
            return "  ".join(parts)
        scores = figures_text({name[5:]: value for name, value in figures.items() if name.startswith("eval/")})
        return f"{start}  after epoch {entry.step // self._per_epoch}: {scores}" if scores else ""


def figures_text(scores: dict[str, Any]) -> str:
    """Scores in one line.

    >>> figures_text({"f1": 81.25, "exact_match": 70.0})
    'f1 81.25, exact_match 70.00'
    """
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
