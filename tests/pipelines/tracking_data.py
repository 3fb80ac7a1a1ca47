"""Figures for tests of the journal and of its way to MLflow."""

from collections.abc import Iterable

from pipelines.tracking.journal import Journal


def write_steps(journal: Journal, steps: Iterable[int]) -> None:
    for step in steps:
        journal.append(step, {"train/loss": 10.0 / (1 + step), "learning_rate": step * 1e-5})
