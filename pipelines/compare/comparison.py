"""The result: a section's groups with their differences, said in sentences, and the published figures beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.compare.config import CompareConfig
from pipelines.compare.differences import Difference, differences_of
from pipelines.compare.groups import Group, groups_of
from pipelines.compare.names import benchmark_title, digits, figure_title, signed
from pipelines.compare.runs import Source
from pipelines.compare.sections import Section, Trial, sections_of
from pipelines.console import counted
from pmlm_core.errors import ConfigError
from tune_spaces.base import Published

_ORDER = ("finished", "running", "stopped", "failed")


@dataclass(frozen=True)
class Comparison:
    """What came of one benchmark.

    Attributes:
        groups: best first; `differences` are the best one's to each of them.
        published: the benchmark's published results; empty where it is not known.
    """

    section: Section
    groups: tuple[Group, ...]
    differences: tuple[Difference | None, ...]
    published: tuple[Published, ...]

    @property
    def best(self) -> Group | None:
        """The winner; None where nothing has finished."""
        first = self.groups[0] if self.groups else None
        return first if first is not None and first.best.outcome == "finished" and first.best.scores else None

    def counts(self) -> dict[str, int]:
        """How many runs ended in which way, those that did."""
        outcomes = [trial.outcome for trial in self.section.trials]
        return {outcome: outcomes.count(outcome) for outcome in _ORDER if outcome in outcomes}  # type: ignore[arg-type]

    def unfinished(self) -> list[Trial]:
        """Runs without a final score, by how they ended."""
        others = [trial for trial in self.section.trials if trial.outcome != "finished"]
        return sorted(others, key=lambda trial: (_ORDER.index(trial.outcome), trial.run.name))


def compare(source: Source, config: CompareConfig) -> list[Comparison]:
    """Read, group and test.

    Raises:
        ConfigError: nothing fits what was asked for.
    """
    return [_comparison(section, source, config) for section in sections_of(source.runs(), source, config)]


def _comparison(section: Section, source: Source, config: CompareConfig) -> Comparison:
    groups = groups_of(section, config.group_by)
    differences = differences_of(section, groups, source, config)
    # Those whose scores are of something else stand below the ones they cannot be held against.
    order = sorted(
        range(len(groups)),
        key=lambda place: (place > 0 and differences[place] is None, bool((d := differences[place]) and d.apart)),
    )
    return Comparison(
        section,
        tuple(groups[place] for place in order),
        tuple(differences[place] for place in order),
        published(section.name),
    )


def published(name: str) -> tuple[Published, ...]:
    """Published results of a benchmark; none of data of one's own, though its task be a benchmark's."""
    from tune_spaces.registry import get_benchmark

    try:
        return get_benchmark(name).published
    except ConfigError:
        return ()


def headline(comparison: Comparison) -> str:
    """What won, by how much, and whether that is more than noise: a sentence."""
    section, best = comparison.section, comparison.best
    title = benchmark_title(section.name)
    if best is None:
        told = ", ".join(f"{count} {outcome}" for outcome, count in comparison.counts().items())
        return f"{title}: nothing has finished yet ({told})."
    score = f"{figure_title(section.metric)} {spread(best)} on {section.split}{_beside_baseline(section, best)}"
    rivals = [(group, each) for group, each in zip(comparison.groups, comparison.differences, strict=True) if each]
    if not rivals:
        return f"{title}: the best is {best.label}: {score}; there is nothing finished to compare it with."
    nearest, difference = rivals[0]
    if difference.points is None:
        return f"{title}: {best.label}: {score}; no other group can be held against it: {difference.note}."
    return f"{title}: the best is {best.label}: {score}. {against(section, nearest, difference)}."


def _beside_baseline(section: Section, best: Group) -> str:
    """A clause for a winner that is no better than what has learned nothing; "" for one that is, or without a baseline.

    As the figures are shown: what reads the same is the same.
    """
    if section.baseline is None or best.best.mean is None:
        return ""
    ahead = section.sign * (round(best.best.mean, 2) - round(section.baseline, 2))
    if ahead > 0:
        return ""
    return f", {'worse' if ahead < 0 else 'no better'} than the trivial baseline's {section.baseline:.2f}"


def against(section: Section, other: Group, difference: Difference) -> str:
    """The best against another group, in words: "It is 1.8 points ahead of B, 95 % interval −0.4 to 4.0, ..."."""
    points = section.sign * (difference.points or 0.0)
    if abs(points) < 0.005:
        text = f"It scores the same as {other.label}"
    else:
        text = f"It is {abs(points):.{digits(points)}f} points {'ahead of' if points > 0 else 'behind'} {other.label}"
    return text + evidence(section, difference)


def evidence(section: Section, difference: Difference) -> str:
    """The interval, p and verdict, as the end of a sentence."""
    if difference.p is None or difference.low is None or difference.high is None:
        return f"; whether that is noise cannot be told: {difference.note}"
    low, high = sorted((section.sign * difference.low, section.sign * difference.high))
    return f", 95 % interval {signed(low)} to {signed(high)}, {shown_p(difference)}: {in_full(difference)}"


def verdict(difference: Difference | None) -> str:
    """In two or three words; "" for the best itself."""
    return "" if difference is None else difference.verdict


def in_full(difference: Difference) -> str:
    """The verdict as a part of a sentence."""
    match difference.verdict:
        case "depends on seeds":
            return "more than noise between these models; over seeds, it may be noise"
        case "other seeds unknown":
            return f"more than noise on these examples; {difference.note}, other seeds unknown"
    return difference.verdict


def shown_p(difference: Difference) -> str:
    """p, adjusted for all pairs that might have been compared: "p = 0.11"."""
    p = difference.holm
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{3 if p < 0.1 else 2}f}"


def how(difference: Difference | None) -> str:
    """Which test was used, and why no better one."""
    if difference is None:
        return ""
    match difference.test:
        case "paired":
            p = difference.seeds_holm
            seeds = f"no test over seeds: {difference.note}" if p is None else f"t test over seeds p = {p:.2g}"
            return f"paired test over {difference.examples:,} examples; {seeds}"
        case "welch":
            return f"Welch's t over seeds: {difference.note}"
    return difference.note


def spread(group: Group) -> str:
    """Mean and standard deviation over seeds: "61.4 ± 0.8 (5 seeds)"."""
    return f"{score_of(group)} ({counted(len(group.best.scores), 'seed')})"


def score_of(group: Group) -> str:
    best = group.best
    if best.mean is None:
        return "no score"
    more = "" if best.stdev is None else f" ± {best.stdev:.2f}"
    return f"{best.mean:.2f}{more}"


def single_seed_note(groups: Sequence[Group], sign: int) -> str:
    """What to say of configurations that scored higher than the winner with one seed only; "" if there are none."""
    best = groups[0].best.mean if groups else None
    if best is None:
        return ""
    higher = [
        group
        for group in groups
        if not group.best.confirmed and group.best.mean is not None and sign * (group.best.mean - best) > 0
    ]
    if not higher:
        return ""
    return (
        f"{counted(len(higher), 'configuration')} scored better with one seed only, which may be luck: of a sweep "
        "that trained some with several seeds, only those can be the best"
    )
