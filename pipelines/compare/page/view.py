"""What the page's template is given of one benchmark: texts, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.compare.comparison import Comparison, headline, in_full, score_of, shown_p, single_seed_note
from pipelines.compare.importance import Importance, importance_of
from pipelines.compare.names import benchmark_title, figure_title, spoken
from pipelines.compare.page.bars import importance_bars
from pipelines.compare.page.cost import cost
from pipelines.compare.page.curves import curves
from pipelines.compare.page.frame import Reference, on_scale, published_of, references_of, score_scale
from pipelines.compare.page.marks import Marks, legend, marks_of
from pipelines.compare.page.parallel import parallel
from pipelines.compare.page.ranking import ranking
from pipelines.compare.page.scatter import scatter
from pipelines.compare.page.standing import standing
from pipelines.compare.table import tests_used, unfinished
from pipelines.console import counted
from pipelines.quantities import duration

_PLOTTED = 8  # options
_LONG = {"learning_rate": "learning rate", "batch_size": "batch size"}


@dataclass(frozen=True)
class Figure:
    """A picture with its title, and what to say below it; without a picture, why there is none."""

    title: str
    picture: Markup | None
    note: str = ""
    wide: bool = False


def section_view(comparison: Comparison, group_by: str, first_number: int) -> tuple[dict[str, Any], Marks]:
    """The section's part of the template's values, and the numbers of its trials, from `first_number` on."""
    section = comparison.section
    marks = marks_of(comparison, group_by, first_number)
    title = benchmark_title(section.name)
    sentence = headline(comparison).removeprefix(f"{title}: ")
    return {
        "id": f"benchmark-{first_number}",
        "title": title,
        "metric": figure_title(section.metric),
        "split": section.split,
        "headline": sentence[:1].upper() + sentence[1:],
        "card": _card(comparison),
        "facts": _facts(comparison),
        "note": single_seed_note(comparison.groups, section.sign),
        "tests": tests_used(comparison),
        "ranking": ranking(comparison, marks, group_by),
        "legend": legend(marks, section),
        "figures": _figures(comparison, marks),
        "standing": standing(comparison),
        "unfinished": [
            {"outcome": outcome, "reason": reason, "names": [trial.run.name for trial in trials]}
            for (outcome, reason), trials in unfinished(comparison).items()
        ],
    }, marks


def _card(comparison: Comparison) -> dict[str, Any]:
    section, best = comparison.section, comparison.best
    if best is None:
        return {"score": "–", "under": "nothing finished yet", "verdict": "", "told": ""}
    nearest = next((each for each in comparison.differences if each is not None and each.points is not None), None)
    published = next(iter(published_of(comparison)), None)
    told = [] if section.baseline is None else [f"baseline {section.baseline:.2f}"]
    told += [f"published, {published.label}: {published.value:g}"] if published else []
    under = f"{figure_title(section.metric)} on {section.split}, {counted(len(best.best.scores), 'seed')}"
    ahead = nearest is not None and section.sign * (nearest.points or 0.0) >= 0
    lead = "" if nearest is None else f"{'lead over' if ahead else 'distance to'} the next: {in_full(nearest)}"
    p = "" if nearest is None or nearest.p is None else f" ({shown_p(nearest)})"
    return {"score": score_of(best), "under": under, "verdict": lead + p, "told": "; ".join(told), "best": best.label}


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    section = comparison.section
    counts = ", ".join(f"{count} {outcome}" for outcome, count in comparison.counts().items())
    facts = [("Runs", counts), ("Configurations", str(sum(len(group.configurations) for group in comparison.groups)))]
    spent = [trial.run.seconds for trial in section.trials if trial.run.seconds is not None]
    if spent:
        facts.append(("Time of all runs", duration(sum(spent))))
    on_gpu = [trial.run.gpu_seconds for trial in section.trials if trial.run.gpu_seconds]
    if on_gpu:
        facts.append(("On GPUs", duration(sum(on_gpu))))
    return facts


def _figures(comparison: Comparison, marks: Marks) -> list[Figure]:
    section = comparison.section
    scores = [trial.score for trial in section.trials if trial.score is not None]
    if not scores:
        return []
    references = references_of(comparison)
    scale = score_scale(scores, references)
    away = _off_scale(references, on_scale(scale, references), scale.high)
    title = figure_title(section.metric)
    found = [
        Figure(f"{title} by {_LONG.get(option) or spoken(option)}", scatter(section, marks, scale, option, references))
        for option in section.searched[:_PLOTTED]
    ]
    learned = curves(section, marks)
    found.append(Figure("Learning curves", learned, "" if learned else "no run was scored after its epochs"))
    spent = cost(section, marks, scale, references)
    front = "Dotted: the front of finished trials that no cheaper one equals." if spent else "no cost was recorded"
    found.append(Figure(f"{title} by cost", spent, front))
    importance = importance_of(section)
    found.append(Figure("Importance of the options", importance_bars(importance), _importance_note(importance)))
    lines = parallel(section, marks)
    if lines is not None:
        found.append(Figure("All options at once", lines, "A line is a trial; the better, the stronger.", wide=True))
    if away:
        found[0] = Figure(found[0].title, found[0].picture, away, found[0].wide)
    return found


def _importance_note(importance: Importance) -> str:
    if importance.reason:
        return f"Not computed: {importance.reason}."
    return f"{importance.evaluator}, over {importance.configurations} finished configurations."


def _off_scale(references: Sequence[Reference], drawn: Sequence[Reference], high: float) -> str:
    away = [each for each in references if each not in drawn]
    if not away:
        return ""
    told = ", ".join(f"{each.label} {each.value:g}" for each in away)
    return f"{'Above' if all(each.value > high for each in away) else 'Off'} this scale: {told}."
