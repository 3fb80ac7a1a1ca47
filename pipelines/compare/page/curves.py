"""Learning curves: the score on the development split after every epoch, a line a trial."""

from markupsafe import Markup

from pipelines.compare.page.axes import Scale, linear
from pipelines.compare.page.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, horizontal, vertical
from pipelines.compare.page.marks import Marks
from pipelines.compare.page.svg import drawing, joined, path
from pipelines.compare.sections import Section


def curves(section: Section, marks: Marks) -> Markup | None:
    """The plot; None where no trial was scored after an epoch."""
    drawn = [trial for trial in section.trials if trial.curve]
    if not drawn:
        return None
    last = max(epoch for trial in drawn for epoch, _ in trial.curve)
    scale = _epochs(last)
    scores = linear([value for trial in drawn for _, value in trial.curve], BOTTOM - 6, TOP)
    # The best are drawn last, over the others.
    drawn.sort(key=lambda trial: (trial.run.id in marks.best, section.sign * trial.curve[-1][1]))
    lines, points = [], []
    for place, trial in enumerate(drawn):
        where = [(scale.at(epoch), scores.at(value)) for epoch, value in trial.curve]
        if len(where) > 1:
            lines.append(marks.line(trial, path(where)))
        points.append(marks.mark(trial, *where[-1], first=place == len(drawn) - 1))
    title = f"{section.metric} by epoch, {len(drawn)} trials; arrow keys move between the ends of their lines"
    return drawing(
        WIDTH, HEIGHT, title, vertical(scores), horizontal(scale, "epoch"), joined(lines), joined(points)
    )  # fmt: skip


def _epochs(last: int) -> Scale:
    step = max(1, -(-last // 8))
    bare = Scale(LEFT + 8, RIGHT - 8, 1.0, float(max(2, last)), "linear")
    ticks = tuple((bare.at(epoch), str(epoch)) for epoch in range(1, last + 1) if epoch % step == 0 or epoch == 1)
    return Scale(bare.start, bare.end, bare.low, bare.high, bare.kind, (), ticks)
