"""The lines that fine-tuning shows: loss, accuracy, learning rate, scores of an epoch, time left."""

from collections.abc import Callable

from pipelines.finetune.results import ordered
from pipelines.follow import Follower
from pipelines.run_folder import RunDir
from pipelines.tracking.journal import Entry

_SHOWN = 4


class Progress(Follower):
    """Follows one seed."""

    def __init__(
        self, run: RunDir, seed: int, metric: str, max_steps: int, per_epoch: int, ship: Callable[[int], None]
    ) -> None:
        self._seed, self._metric, self._per_epoch = seed, metric, per_epoch
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
        scores = {name[5:]: value for name, value in figures.items() if name.startswith("eval/")}
        shown = ", ".join(f"{name} {scores[name]:.2f}" for name in ordered(scores, self._metric)[:_SHOWN])
        return f"{start}  after epoch {entry.step // self._per_epoch}: {shown}" if shown else ""
