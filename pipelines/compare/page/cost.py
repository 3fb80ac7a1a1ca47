"""Score against what a trial took, with the front of those that no other beats in both."""

from markupsafe import Markup

from pipelines.compare.page.axes import Scale, fitting
from pipelines.compare.page.frame import HEIGHT, LEFT, RIGHT, WIDTH, Reference, horizontal, vertical
from pipelines.compare.page.marks import Marks
from pipelines.compare.page.svg import drawing, element, joined, path
from pipelines.compare.pareto import pareto_front
from pipelines.compare.sections import Section, Trial

_UNITS = ((3600.0 * 3, "hours", 3600.0), (60.0 * 3, "minutes", 60.0), (0.0, "seconds", 1.0))


def seconds_of(trial: Trial) -> float | None:
    """GPU-seconds where there are some, else seconds on the clock."""
    return trial.run.gpu_seconds or trial.run.seconds


def cost(section: Section, marks: Marks, scores: Scale, references: list[Reference]) -> Markup | None:
    """The plot; None where no trial has both a score and a cost."""
    known = [(seconds_of(trial), trial.score, trial) for trial in section.trials]
    both = sorted(
        ((spent, score, trial) for spent, score, trial in known if spent and score is not None), key=lambda one: one[0]
    )
    if not both:
        return None
    unit, size = next((name, size) for least, name, size in _UNITS if both[-1][0] >= least)
    scale = fitting([spent / size for spent, _, _ in both], LEFT + 8, RIGHT - 6)
    finished = [(spent, score) for spent, score, trial in both if trial.outcome == "finished"]
    front = [finished[place] for place in pareto_front([(spent, section.sign * score) for spent, score in finished])]
    corners: list[tuple[float, float]] = []
    for spent, score in front:
        x, y = scale.at(spent / size), scores.at(score)
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    points = [
        marks.mark(trial, scale.at(spent / size), scores.at(score), first=not place)
        for place, (spent, score, trial) in enumerate(both)
    ]
    gpu = "GPU-" * any(trial.run.gpu_seconds for trial in section.trials)
    title = f"{section.metric} against {gpu}{unit}, {len(points)} trials, {len(front)} on the Pareto front"
    return drawing(
        WIDTH, HEIGHT, title, vertical(scores, references), horizontal(scale, f"{gpu}{unit} of a trial"),
        element("path", class_="front", d=path(corners)) if len(corners) > 1 else "", joined(points),
    )  # fmt: skip
