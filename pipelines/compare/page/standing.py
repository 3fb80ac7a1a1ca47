"""The best beside the published results: a table with bars, for every figure that both have."""

from typing import Any

from pipelines.compare.comparison import Comparison
from pipelines.compare.groups import Group
from pipelines.compare.names import figure_title, signed
from pipelines.compare.page.bars import figure_bar
from pipelines.compare.page.frame import BASELINE
from pipelines.console import counted
from tune_spaces.base import Published


def standing(comparison: Comparison) -> list[dict[str, Any]]:
    """A table for each published figure, the section's own first; empty where nothing is published."""
    best = comparison.best
    names = dict.fromkeys(name for each in comparison.published for name in each.figures)
    names = dict.fromkeys([name for name in names if name == comparison.section.metric]) | names
    return [table for name in names if (table := _table(comparison, best, name))] if best else []


def _table(comparison: Comparison, best: Group | None, name: str) -> dict[str, Any] | None:
    given = [each for each in comparison.published if name in each.figures]
    split = _split(comparison, given)
    values = [trial.run.metrics.get(f"final/{split}/{name}") for trial in best.best.scored] if best else []
    known = [value for value in values if value is not None]
    rows: list[tuple[str, float, str, bool]] = [(each.model, each.figures[name], each.split, False) for each in given]
    if best is not None and known:
        label = f"{best.label} (mean of {counted(len(known), 'seed')})"
        rows.append((label, sum(known) / len(known), split, True))
    if not given:
        return None
    ignorant = comparison.section.baseline_of(split, name)
    if ignorant is not None:
        rows.append((BASELINE, ignorant, split, False))
    rows.sort(key=lambda row: -row[1])
    own = next((value for _, value, _, mine in rows if mine), None)
    highest = max(100.0 if rows[0][1] > 50 else rows[0][1], rows[0][1])
    return {
        "figure": figure_title(name),
        "rows": [
            {
                "model": model,
                "value": f"{value:.2f}".rstrip("0").rstrip("."),
                "split": where,
                "gap": "" if own is None or mine else signed(value - own),
                "bar": figure_bar(value, highest, own=mine),
                "own": mine,
            }
            for model, value, where, mine in rows
        ],
    }


def _split(comparison: Comparison, given: list[Published]) -> str:
    """The split here that goes with the published one: the section's own, or the test split."""
    own = comparison.section.split
    return own if any(own.startswith(each.split) for each in given) or not given else given[0].split
