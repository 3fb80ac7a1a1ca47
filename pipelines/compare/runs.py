"""A run as the comparison sees it, wherever it was read from: MLflow or its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

SWEEP, TRIAL, FINETUNE = "sweep", "sweep-trial", "finetune"
"""Values of the tag `stage`: a sweep as a whole, one of its trials, a seed of `pmlm finetune`."""

Outcome = Literal["finished", "stopped", "failed", "running"]
Curve = tuple[tuple[int, float], ...]
_BY_STATUS: Mapping[str, Outcome] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        id: of MLflow; of a run that MLflow never had, the path or address of its folder.
        params: options as text, as MLflow keeps them.
        metrics: the last value of every figure.
        history: figure of `eval/` -> (epoch, value) by epoch, of the figures that were asked for.
        status: RUNNING, FINISHED, FAILED or KILLED.
        start, end: seconds since 1970; of a run read from its folder, of its first and last figures.
        parent: id of the sweep's run.
        folder: of the run, where that is known.
        model: where its model is, if that can be told: a folder of this machine or an address in a store.
    """

    id: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    status: str
    start: float | None = None
    end: float | None = None
    parent: str | None = None
    folder: str | None = None
    model: str | None = None
    history: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return self.tags.get("stage", "")

    @property
    def outcome(self) -> Outcome:
        """How it ended: what the sweep says, else by its status."""
        told = self.tags.get("outcome")
        if told in ("finished", "stopped", "failed"):
            return told  # type: ignore[return-value]
        return _BY_STATUS.get(self.status, "running")

    @property
    def reason(self) -> str:
        """Why it did not finish, in words; "" for one that did."""
        match self.outcome:
            case "failed":
                return self.tags.get("failure") or "the reason was not recorded"
            case "stopped":
                return self.tags.get("failure") or (
                    "stopped by the sweep as hopeless" if self.stage == TRIAL else "interrupted"
                )
            case "running":
                return "still running, or lost without a word"
        return ""

    @property
    def seed(self) -> str:
        return self.params.get("seed", "0")

    @property
    def is_finalist(self) -> bool:
        return self.tags.get("phase", "").startswith("finalist")

    @property
    def seconds(self) -> float | None:
        """What it took on the clock: as recorded, else from its start to its end."""
        told = self.metrics.get("cost/seconds")
        if told is not None:
            return told
        return None if self.start is None or self.end is None else max(0.0, self.end - self.start)

    @property
    def gpu_seconds(self) -> float | None:
        return self.metrics.get("cost/gpu_seconds")


class Source(Protocol):
    """Where runs come from. What is large is read only for the runs it is asked of."""

    def runs(self) -> list[Run]:
        """The chosen runs, sweeps as a whole among them.

        Raises:
            ConfigError: nothing fits the choice; the message says what there is.
        """

    def history(self, run: Run, figure: str) -> Curve:
        """(epoch, value) of `eval/<figure>`; empty where it has none."""

    def paired(self, run: Run, split: str) -> dict[str, Any] | None:
        """Content of `paired/<split>.json`; None where there is none."""


def by_epoch(points: list[tuple[int, float]]) -> Curve:
    """Turn (update, value) of the ends of epochs into (epoch, value): epochs have the same number of updates.

    >>> by_epoch([(20, 61.0), (10, 55.0), (30, 60.0)])
    ((1, 55.0), (2, 61.0), (3, 60.0))
    """
    points = sorted(dict(points).items())
    steps = [step for step, _ in points]
    if steps and steps[0] > 0 and all(step % steps[0] == 0 for step in steps):
        return tuple((step // steps[0], value) for step, value in points)
    return tuple((place, value) for place, (_, value) in enumerate(points, 1))


def parsed(text: str) -> Any:
    """An option's value from its text: a number, True, False, None, or the text itself.

    >>> parsed("2e-05"), parsed("16"), parsed("True"), parsed("None"), parsed("auto")
    (2e-05, 16, True, None, 'auto')
    """
    constants = {"None": None, "True": True, "False": False}
    if text in constants:
        return constants[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
