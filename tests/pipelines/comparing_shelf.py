"""Runs in memory that are compared, without a store."""

from dataclasses import dataclass, field
from typing import Any

from pipelines.compare.comparison import Comparison, compare
from pipelines.compare.config import CompareConfig
from pipelines.compare.runs import Curve, Run

SOME = CompareConfig(resamples=500)


@dataclass
class Shelf:
    """Runs in memory."""

    found: list[Run]
    files: dict[str, Any] = field(default_factory=dict)

    def runs(self) -> list[Run]:
        return self.found

    def history(self, run: Run, figure: str) -> Curve:
        return run.history.get(figure, ())

    def paired(self, run: Run, split: str) -> dict[str, Any] | None:
        return self.files.get(run.id)


def run(key: str, score: float | None, seed: int = 1, **more: Any) -> Run:
    """A trial; `tags`, `options` and the fields of a run may be given."""
    options = {"learning_rate": 1e-4, "batch_size": 32, "num_train_epochs": 3, **more.pop("options", {})}
    tags = {"stage": "sweep-trial", "task": "rte", "benchmark": "rte", "sweep": "night", "strategy": "random"}
    tags |= {"metric": "accuracy", "pretrained.sha256": "a" * 64, **more.pop("tags", {})}
    params = {name: str(value) for name, value in options.items()} | {"seed": str(seed), "from_scratch": "False"}
    metrics = {} if score is None else {"final/dev/accuracy": score}
    return Run(key, key, params, tags, metrics | {"cost/seconds": 60.0}, more.pop("status", "FINISHED"), **more)


def results(*right: int, examples: str = "dev") -> dict[str, Any]:
    entry = {"kind": "mean", "values": [100.0 * value for value in right]}
    return {"examples": examples, "ids": [str(i) for i in range(len(right))], "figures": {"accuracy": entry}}


def only(shelf: Shelf, config: CompareConfig = SOME) -> Comparison:
    (found,) = compare(shelf, config)
    return found
