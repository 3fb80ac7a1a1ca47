"""What the plots of scores share: size, axes, grid, and the published figures as lines."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.compare.comparison import Comparison
from pipelines.compare.page.axes import Scale, linear, thinned
from pipelines.compare.page.svg import element, joined

WIDTH, HEIGHT = 340, 244
LEFT, RIGHT, TOP, BOTTOM = 42, 328, 14, 200
BASELINE = "baseline"
_RAIL = 14  # below the scores: trials without one


@dataclass(frozen=True)
class Reference:
    """A published figure, or a trivial baseline's, on the scale of the scores."""

    label: str
    value: float


def references_of(comparison: Comparison) -> list[Reference]:
    """The trivial baseline's and published results, of the section's figure."""
    baseline = comparison.section.baseline
    known = [] if baseline is None else [Reference(BASELINE, round(baseline, 2))]
    return known + published_of(comparison)


def published_of(comparison: Comparison) -> list[Reference]:
    """Published results of the section's figure, the split named where it is another one."""
    section, found = comparison.section, []
    for each in comparison.published:
        if section.metric in each.figures:
            split = "" if section.split.startswith(each.split) else f" ({each.split})"
            found.append(Reference(f"{each.model}{split}", each.figures[section.metric]))
    return found


def score_scale(scores: Sequence[float], references: Sequence[Reference]) -> Scale:
    """A scale of all scores; published figures not far off are taken in."""
    low, high = min(scores), max(scores)
    reach = max(0.35 * (high - low), 0.5)
    near = [each.value for each in references if low - reach <= each.value <= high + reach]
    return linear([*scores, *near], BOTTOM - _RAIL, TOP)


def on_scale(scale: Scale, references: Sequence[Reference]) -> list[Reference]:
    return [each for each in references if scale.low <= each.value <= scale.high]


def vertical(scale: Scale, references: Sequence[Reference] = ()) -> Markup:
    """The axis of scores at the left, its grid, and the published figures as dashed lines with their names."""
    parts = []
    for place, label in thinned(scale.ticks, along=False):
        parts.append(element("path", class_="grid", d=f"M{LEFT} {place:.1f}H{RIGHT}"))
        parts.append(element("text", label, class_="tick", x=LEFT - 6, y=place + 4, text_anchor="end"))
    taken: list[float] = []
    for each in on_scale(scale, references):
        place = scale.at(each.value)
        parts.append(element("path", class_="ref", d=f"M{LEFT} {place:.1f}H{RIGHT}"))
        if all(abs(place - other) > 12 for other in taken):
            taken.append(place)
            parts.append(element("text", f"{each.label} {each.value:g}", class_="reflabel", x=LEFT + 4, y=place - 3))
    return joined(parts)


def horizontal(scale: Scale, label: str) -> Markup:
    """The axis below, with its name."""
    parts = [element("path", class_="axis", d=f"M{LEFT} {BOTTOM}H{RIGHT}")]
    for place, text in thinned(scale.ticks):
        parts.append(element("path", class_="axis", d=f"M{place:.1f} {BOTTOM}v4"))
        parts.append(element("text", text, class_="tick", x=place, y=BOTTOM + 17, text_anchor="middle"))
    parts.append(element("text", label, class_="axislabel", x=(LEFT + RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle"))
    return joined(parts)


def rail() -> float:
    """Where trials without a score stand: just above the axis."""
    return BOTTOM - _RAIL / 2
