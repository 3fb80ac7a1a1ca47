"""Small bars: importance of options, a figure in a table's row, a difference with its interval."""

from markupsafe import Markup

from pipelines.compare.importance import Importance
from pipelines.compare.names import spoken
from pipelines.compare.page.svg import drawing, element, joined

_WIDTH, _ROW = 340, 34
_CELL, _LINE = 104, 22


def importance_bars(importance: Importance) -> Markup | None:
    """A bar for each option, longest first; None where there are none."""
    if not importance.shares:
        return None
    longest = importance.shares[0][1] or 1.0
    rows = []
    for place, (name, share) in enumerate(importance.shares):
        y = 6 + place * _ROW
        rows += [
            element("text", spoken(name), class_="axislabel", x=4, y=y + 11),
            element("text", f"{share:.0%}", class_="tick", x=_WIDTH - 6, y=y + 11, text_anchor="end"),
            element("rect", class_="track", x=4, y=y + 16, width=_WIDTH - 10, height=8, rx=4),
            element(
                "rect", class_="bar", x=4, y=y + 16, width=max(2.0, (_WIDTH - 10) * share / longest), height=8, rx=4
            ),
        ]
    said = ", ".join(f"{spoken(name)} {share:.0%}" for name, share in importance.shares)
    height = 6 + _ROW * len(importance.shares)
    return drawing(_WIDTH, height, f"importance: {said}", joined(rows), role="img")


def figure_bar(value: float, highest: float, *, own: bool) -> Markup:
    """A figure from 0 to `highest` as a bar in a table; the number stands beside it."""
    width = max(0.0, (_CELL - 2) * value / highest) if highest > 0 else 0.0
    return element(
        "svg",
        element("rect", class_="track", x=1, y=7, width=_CELL - 2, height=8, rx=4),
        element("rect", class_="bar" if own else "bar other", x=1, y=7, width=width, height=8, rx=4),
        class_="cell", viewBox=f"0 0 {_CELL} {_LINE}", aria_hidden="true",
    )  # fmt: skip


def interval_cell(points: float, low: float | None, high: float | None, ends: tuple[float, float]) -> Markup:
    """A difference with its interval beside a line at 0, on the scale that all rows of the table share."""
    span = (ends[1] - ends[0]) or 1.0

    def at(value: float) -> float:
        return 6 + (_CELL - 12) * (min(max(value, ends[0]), ends[1]) - ends[0]) / span

    parts = [element("path", class_="zero", d=f"M{at(0.0):.1f} 2V{_LINE - 2}")]
    if low is not None and high is not None:
        parts.append(
            element(
                "path", class_="whisker", d=f"M{at(low):.1f} 11H{at(high):.1f}M{at(low):.1f} 7v8M{at(high):.1f} 7v8"
            )
        )
    parts.append(element("circle", class_="dot", cx=at(points), cy=11, r=4))
    return element("svg", *parts, class_="cell", viewBox=f"0 0 {_CELL} {_LINE}", aria_hidden="true")
