"""Parallel coordinates: an axis for every searched option and one for the score; a trial is a line across them."""

from markupsafe import Markup

from pipelines.compare.names import figure_title, spoken
from pipelines.compare.page.axes import Scale, fitting, linear, thinned
from pipelines.compare.page.marks import Marks
from pipelines.compare.page.svg import drawing, element, joined, path
from pipelines.compare.sections import Section, Trial

_WIDTH, _HEIGHT = 760, 300
_TOP, _BOTTOM, _LEFT, _RIGHT = 38, 282, 62, 690
_MOST = 7  # options
_CLASSES = 5  # of scores, in strength of the line


def parallel(section: Section, marks: Marks) -> Markup | None:
    """The plot of the trials with a score; None for fewer than two options or trials."""
    options = section.searched[:_MOST]
    scored = [(trial.score, trial) for trial in section.trials if trial.score is not None]
    if len(options) < 2 or len(scored) < 2:
        return None
    scored.sort(key=lambda each: section.sign * each[0])
    scales = [fitting([trial.options.get(name) for _, trial in scored], _BOTTOM, _TOP) for name in options]
    last = linear([score for score, _ in scored], _BOTTOM, _TOP)
    columns = [_LEFT + place * (_RIGHT - _LEFT) / len(options) for place in range(len(options) + 1)]
    axes = [_axis(x, scale, spoken(name)) for x, scale, name in zip(columns, scales, options, strict=False)]
    axes.append(_axis(columns[-1], last, figure_title(section.metric), last=True))
    lines, points = [], []
    for place, (score, trial) in enumerate(scored):
        where = _through(trial, options, scales, columns)
        where.append((columns[-1], last.at(score)))
        strength = place * _CLASSES // len(scored)
        lines.append(marks.line(trial, path(where), f" q{strength}"))
        points.append(marks.mark(trial, *where[-1], first=place == len(scored) - 1))
    told = f"{', '.join(map(spoken, options))} and {section.metric}"
    title = f"{told} of {len(scored)} trials, a line each; the better the stronger"
    return drawing(_WIDTH, _HEIGHT, title, joined(lines), joined(axes), joined(points), class_="plot wide")


def _through(
    trial: Trial, options: tuple[str, ...], scales: list[Scale], columns: list[float]
) -> list[tuple[float, float]]:
    return [
        (x, scale.at(trial.options.get(name))) for x, name, scale in zip(columns, options, scales, strict=False)
    ]  # fmt: skip


def _axis(x: float, scale: Scale, name: str, *, last: bool = False) -> Markup:
    """An axis with its labels at the left; those of the last one at the right, beyond the points."""
    parts = [element("path", class_="axis", d=f"M{x:.1f} {_TOP}V{_BOTTOM}")]
    tick, label_x, anchor = (x, x + 16, "start") if last else (x - 3, x - 6, "end")
    for place, label in thinned(scale.ticks, along=False):
        parts.append(element("path", class_="axis", d=f"M{tick:.1f} {place:.1f}h3"))
        parts.append(element("text", label, class_="tick halo", x=label_x, y=place + 4, text_anchor=anchor))
    parts.append(element("text", name, class_="axislabel", x=x, y=20, text_anchor="middle"))
    return joined(parts)
