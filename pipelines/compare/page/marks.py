"""How a trial looks: its series has a colour and a shape; it is filled, hollow or a cross; the best have a ring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.compare.comparison import Comparison
from pipelines.compare.groups import model_label
from pipelines.compare.names import figure_title, shown, spoken
from pipelines.compare.page.svg import element
from pipelines.compare.sections import Section, Trial

_SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",  # circle
    "M-4-4h8v8h-8z",  # square
    "M0-5.2L5 4H-5z",  # triangle
    "M0-5.6L5.6 0L0 5.6L-5.6 0z",  # diamond
    "M0 5.2L5-4H-5z",  # triangle, point down
    "M0-5.4L5.1-1.7L3.2 4.4H-3.2L-5.1-1.7z",  # pentagon
    "M-1.7-5h3.4v3.3H5v3.4H1.7V5h-3.4V1.7H-5v-3.4h3.3z",  # plus
    "M-5.4 0L-2.7-4.7H2.7L5.4 0L2.7 4.7H-2.7z",  # hexagon
)
_MANY = 60  # trials from which on marks are smaller
_CROSS = "M-4-4L4 4M-4 4L4-4"
_RING = "M-8.6 0a8.6 8.6 0 1 0 17.2 0a8.6 8.6 0 1 0-17.2 0zM-6.8 0a6.8 6.8 0 1 0 13.6 0a6.8 6.8 0 1 0-13.6 0z"


@dataclass(frozen=True)
class Marks:
    """The trials of one section: their numbers on the page, series and names.

    Attributes:
        numbers: run id -> number of the run on the page.
        series: run id -> place in `names`.
        names: of the series; one empty name where there is only one.
        labels: run id -> a line that says what the trial is and what it scored.
        best: ids of the runs that the winner's figure is of.
    """

    numbers: Mapping[str, int]
    series: Mapping[str, int]
    names: Sequence[str]
    labels: Mapping[str, str]
    best: frozenset[str]

    def mark(self, trial: Trial, x: float, y: float, *, first: bool = False) -> Markup:
        """A trial at a place; `first`: the tabulator stops at it, the arrow keys go on from there."""
        run, series = trial.run, self.series[trial.run.id]
        shape = _CROSS if trial.outcome == "failed" else _SHAPES[series]
        if run.id in self.best:
            shape += _RING
        small = " scale(.7)" if len(self.numbers) > _MANY else ""
        looks = {"finished": "", "failed": " x"}.get(trial.outcome, " h")
        return element(
            "path", class_=f"t s{series}{looks}{' b' * (run.id in self.best)}", d=shape,
            transform=f"translate({x:.1f} {y:.1f}){small}", tabindex=0 if first else -1, role="img",
            aria_label=self.labels[run.id], data_r=self.numbers[run.id],
        )  # fmt: skip

    def line(self, trial: Trial, d: str, extra: str = "") -> Markup:
        """A trial as a line."""
        run = trial.run
        best = " b" * (run.id in self.best)
        return element(
            "path", class_=f"l s{self.series[run.id]}{best}{extra}", d=d, data_r=self.numbers[run.id]
        )  # fmt: skip


def marks_of(comparison: Comparison, group_by: str, first_number: int) -> Marks:
    """Number and name a section's trials, the first with `first_number`."""
    section = comparison.section
    named = {trial.run.id: _series(section, trial, group_by) for trial in section.trials}
    names = sorted(set(named.values()), key=lambda name: (-sum(n == name for n in named.values()), name))
    if len(names) > len(_SHAPES):
        names = [*names[: len(_SHAPES) - 1], "others"]
    best = comparison.best
    return Marks(
        {trial.run.id: first_number + place for place, trial in enumerate(section.trials)},
        {run: names.index(name) if name in names else len(names) - 1 for run, name in named.items()},
        names if len(names) > 1 else [""],
        {trial.run.id: label_of(section, trial) for trial in section.trials},
        frozenset(trial.run.id for trial in best.best.scored) if best else frozenset(),
    )


def label_of(section: Section, trial: Trial) -> str:
    """A trial in a line: "lr 2e-4, batch 16, seed 1: accuracy 61.4"."""
    options = [f"{spoken(name)} {shown(trial.options.get(name))}" for name in section.searched]
    score = "no score" if trial.score is None else f"{figure_title(section.metric)} {trial.score:.2f}"
    end = "" if trial.outcome == "finished" else f" ({trial.outcome}{', best so far' * (trial.score is not None)})"
    return f"{', '.join([*options, f'seed {trial.run.seed}'])}: {score}{end}"


def legend(marks: Marks, section: Section) -> Markup:
    """What shapes, fillings and rings mean; only those that occur."""
    outcomes = {trial.outcome for trial in section.trials}
    entries = [(f"s{place}", _SHAPES[place], name) for place, name in enumerate(marks.names) if name]
    if not entries:
        entries.append(("s0", _SHAPES[0], "finished"))
    if outcomes & {"stopped", "running"}:
        entries.append(("h n", _SHAPES[0], "hollow: stopped or running, best so far"))
    if "failed" in outcomes:
        entries.append(("x n", _CROSS, "failed"))
    if marks.best:
        entries.append(("b n", _SHAPES[0] + _RING, "ringed: the best"))
    items = [
        element(
            "li",
            element("svg", element("path", class_=f"t {kind}", d=shape), viewBox="-10 -10 20 20", aria_hidden="true"),
            text,
        )
        for kind, shape, text in entries
    ]
    return element("ul", *items, class_="legend")


def _series(section: Section, trial: Trial, group_by: str) -> str:
    run = trial.run
    sweep = run.tags.get("sweep")
    strategy = run.tags.get("strategy")
    told = {
        "model": model_label(run),
        "objective": run.tags.get("pretrained.objective", "not recorded"),
        "strategy": strategy or "pmlm finetune",
    }
    if group_by in told:
        return told[group_by]
    if sweep:
        return f"{sweep} ({strategy})" if strategy else sweep
    models = {model_label(each.run) for each in section.trials}
    return "pmlm finetune" if len(models) == 1 else model_label(run)
