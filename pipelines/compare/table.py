"""The comparison in the terminal: one table a benchmark, best first, the published figures below."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from pipelines.compare.comparison import Comparison, headline, how, score_of, shown_p, single_seed_note, verdict
from pipelines.compare.differences import Difference
from pipelines.compare.groups import Group
from pipelines.compare.names import benchmark_title, shown, signed, spoken
from pipelines.compare.runs import SWEEP
from pipelines.compare.sections import Trial
from pipelines.console import console, counted, say, warn

_ROWS = 15
_WIDE = 110  # columns of the terminal from which every option has its own


def show(comparison: Comparison, group_by: str) -> None:
    """Print one benchmark's part."""
    section = comparison.section
    say("")
    console().print(Text(headline(comparison), style="bold"))
    console().print(_table(comparison, group_by, _ROWS))
    if (left := len(comparison.groups) - _ROWS) > 0:
        say(f"and {left} more: see comparison.csv")
    if note := single_seed_note(comparison.groups, section.sign):
        say(f"note: {note}")
    for line in tests_used(comparison):
        say(f"test: {line}")
    for (outcome, reason), trials in unfinished(comparison).items():
        expected = outcome == "stopped" and bool(section.sweeps)
        text = f"{counted(len(trials), 'run')} {outcome}: {reason}"
        say(text) if expected else warn(f"{text} ({_names(trials)})")
    for run in section.sweeps:
        if run.outcome != "finished":
            warn(f"{SWEEP} {run.name} has not ended: {run.reason}")
    if section.baseline is not None:
        say(f"baseline: {section.metric} {section.baseline:.2f} ({section.split}), by what has learned nothing")
    for each in comparison.published:
        figures = ", ".join(f"{name} {value:g}" for name, value in each.figures.items())
        say(f"published: {each.model}: {figures} ({each.split})")


def unfinished(comparison: Comparison) -> dict[tuple[str, str], list[Trial]]:
    """Runs that did not finish, by how they ended and why."""
    found: dict[tuple[str, str], list[Trial]] = {}
    for trial in comparison.unfinished():
        found.setdefault((trial.outcome, trial.run.reason), []).append(trial)
    return found


def tests_used(comparison: Comparison) -> list[str]:
    """What the p of this table are: a sentence for each test that was used, and how they were adjusted."""
    said: dict[str, int] = {}
    for difference in comparison.differences:
        if difference is not None:
            text = how(difference).partition("; ")[0] if difference.test == "paired" else how(difference)
            said[text] = said.get(text, 0) + 1
    lines = [f"{text} ({counted(count, 'comparison')})" for text, count in said.items()]
    pairs = max((each.pairs or 0 for each in comparison.differences if each is not None), default=0)
    if pairs > 1:
        lines.append(
            f"p is adjusted (Holm) for all {pairs:,} pairs, since the same scores say which is the best; intervals are "
            "not. Below 0.05 these models differ by more than noise. That their options differ, too, is said where a "
            "t test over seeds, adjusted as well, finds it"
        )
    return lines


def _table(comparison: Comparison, group_by: str, most: int) -> Table:
    section = comparison.section
    counts = ", ".join(f"{count} {outcome}" for outcome, count in comparison.counts().items())
    title = f"{benchmark_title(section.name)}: {section.metric} on {section.split}, of {counts}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    wide = console().width >= _WIDE
    as_columns = group_by == "configuration" and bool(section.searched) and wide
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("mean ± stdev (seeds)" if wide else "mean (seeds)", justify="right", no_wrap=True)
    for name in section.searched if as_columns else (group_by,):
        table.add_column(spoken(name), justify="right" if as_columns else "left", no_wrap=as_columns)
    for name in ("seconds", "to best", "p") if wide else ("to best",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    pairs = zip(comparison.groups, comparison.differences, strict=True)
    for rank, (group, difference) in enumerate(list(pairs)[:most], 1):
        options = [shown(group.best.trials[0].options.get(name)) for name in section.searched]
        score = f"{score_of(group)} ({len(group.best.scores)})" if group.best.scores else "no score"
        seconds = "" if group.seconds is None else f"{group.seconds:,.0f}"
        points, p, said = _judged(group, difference)
        figures = [seconds, points, p] if wide else [points]
        # As text, not markup: a run may be called "[red]".
        table.add_row(*map(Text, [str(rank), score, *(options if as_columns else [group.label]), *figures, said]))
    return table


def _judged(group: Group, difference: Difference | None) -> tuple[str, str, str]:
    if difference is None:
        return "", "", "best" if group.best.outcome == "finished" else group.best.outcome
    if difference.points is None:
        return "", "", verdict(difference)
    return signed(-difference.points), shown_p(difference).removeprefix("p ").removeprefix("= "), verdict(difference)


def _names(trials: Sequence[Trial]) -> str:
    names = [trial.run.name for trial in trials[:3]]
    return "; ".join(names) + f"; and {len(trials) - 3} more" * (len(trials) > 3)
