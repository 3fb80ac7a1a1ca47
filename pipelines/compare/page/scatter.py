"""Score against one searched option: a point a trial."""

import zlib

from markupsafe import Markup

from pipelines.compare.names import spoken
from pipelines.compare.page.axes import Scale, fitting
from pipelines.compare.page.frame import HEIGHT, LEFT, RIGHT, WIDTH, Reference, horizontal, rail, vertical
from pipelines.compare.page.marks import Marks
from pipelines.compare.page.svg import drawing, joined
from pipelines.compare.sections import Section, Trial


def scatter(section: Section, marks: Marks, scores: Scale, option: str, references: list[Reference]) -> Markup:
    """The plot of one option; trials without a score stand at its foot."""
    scale = fitting([trial.options.get(option) for trial in section.trials], LEFT + 8, RIGHT - 4)
    placed = [(_place(scale, trial, option), trial) for trial in section.trials]
    placed.sort(key=lambda each: each[0])
    points = [
        marks.mark(trial, x, rail() if trial.score is None else scores.at(trial.score), first=not place)
        for place, (x, trial) in enumerate(placed)
    ]
    title = f"{section.metric} against {spoken(option)}, {len(placed)} trials; arrow keys move between them"
    return drawing(
        WIDTH, HEIGHT, title, vertical(scores, references), horizontal(scale, option), joined(points)
    )  # fmt: skip


def _place(scale: Scale, trial: Trial, option: str) -> float:
    """Along the axis; where values are steps, a little to one side, so that trials do not hide each other."""
    x = scale.at(trial.options.get(option))
    if scale.kind != "steps":
        return x
    room = min(22.0, 0.3 * abs(scale.end - scale.start) / len(scale.steps))
    return x + room * (zlib.crc32(trial.run.id.encode()) % 1000 / 500 - 1)
