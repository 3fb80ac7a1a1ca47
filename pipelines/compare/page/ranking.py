"""The table of groups on the page: best first, each with its difference to the best."""

from typing import Any

from markupsafe import Markup

from pipelines.compare.comparison import Comparison, how, score_of, shown_p, verdict
from pipelines.compare.differences import Difference
from pipelines.compare.groups import Group
from pipelines.compare.names import figure_title, shown, signed, spoken
from pipelines.compare.page.bars import interval_cell
from pipelines.compare.page.marks import Marks
from pipelines.quantities import duration

_SIGNS = {
    "best": "★",
    "within noise": "≈",
    "more than noise": "▼",
    "depends on seeds": "◐",
    "other seeds unknown": "◔",
    "other examples": "≠",
    "scored otherwise": "≠",
    "failed": "✕",
}


def ranking(comparison: Comparison, marks: Marks, group_by: str) -> dict[str, Any]:
    """Columns, and rows of cells; a cell is (what is shown, what it is sorted by, class)."""
    section = comparison.section
    by_options = group_by == "configuration" and bool(section.searched)
    names = list(section.searched) if by_options else []
    several = any(len(group.configurations) > 1 for group in comparison.groups)
    # What was found stands before what was set: on a phone it is what one sees.
    columns = ["#", f"{figure_title(section.metric)} (seeds)", "verdict", "difference to the best"]
    columns += map(spoken, names) if names else [spoken(group_by)]
    columns += ["configurations", "median", "time"] if several else ["time"]
    ends = _ends(comparison)
    rows = []
    for rank, (group, difference) in enumerate(zip(comparison.groups, comparison.differences, strict=True), 1):
        best = group.best
        options = best.trials[0].options
        score = Markup('{} <span class="dim">({})</span>').format(score_of(group), len(best.scores))
        cells: list[tuple[Any, Any, str]] = [(str(rank), rank, "num"), (score, best.mean, "num score")]
        cells += _judged(group, difference, ends)
        if names:
            cells += [(shown(options.get(name)), options.get(name), "num") for name in names]
        else:
            cells.append((group.label, group.label, "label"))
        if several:
            middle = group.median
            cells.append((str(len(group.configurations)), len(group.configurations), "num"))
            cells.append(("" if middle is None else f"{middle:.2f}", middle, "num"))
        cells.append(("" if group.seconds is None else duration(group.seconds), group.seconds, "num"))
        numbers = [marks.numbers[trial.run.id] for trial in group.trials]
        rows.append({"cells": cells, "runs": numbers, "best": comparison.best is group, "label": group.label})
    return {"columns": columns, "rows": rows}


def _judged(group: Group, difference: Difference | None, ends: tuple[float, float]) -> list[tuple[Any, Any, str]]:
    """The cells of verdict and difference; verdicts are sorted by p, the best before, the untested behind."""
    if difference is None:
        ended = "best" if group.best.outcome == "finished" else group.best.outcome
        return [(_chip(ended), -2 if ended == "best" else 2, ""), ("", None, "")]
    if difference.points is None:
        why = Markup('<small class="why">{}</small>').format(how(difference))
        return [(_chip(difference.verdict) + why, 1, ""), ("", None, "gap")]
    points = -difference.points
    low = None if difference.high is None else -difference.high
    high = None if difference.low is None else -difference.low
    span = "" if low is None or high is None else f" [{signed(low)}, {signed(high)}]"
    cell = Markup('{}<span class="diff">{}<span class="dim">{}</span></span>').format(
        interval_cell(points, low, high, ends), signed(points), span
    )
    said, p = verdict(difference), shown_p(difference)
    chip = _chip(said) + Markup('<span class="p">{}</span>').format(p) if p else _chip(said)
    if difference.test != "paired":
        chip += Markup('<small class="why">{}</small>').format(how(difference))
    return [(chip, 1 if difference.holm is None else -difference.holm, ""), (cell, points, "gap")]


def _chip(said: str) -> Markup:
    """A verdict with a sign of its own, so that colour is not needed."""
    sign = _SIGNS.get(said, "○")
    return Markup('<span class="chip {}"><span aria-hidden="true">{}</span> {}</span>').format(
        said.replace(" ", "-"), sign, said
    )


def _ends(comparison: Comparison) -> tuple[float, float]:
    """The scale of all differences, 0 always on it; that of the intervals where there are some."""
    known = [each for each in comparison.differences if each is not None]
    values = [0.0, *(-each.points for each in known if each.points is not None)]
    values += [-end for each in known for end in (each.low, each.high) if end is not None]
    return min(values), max(values)
