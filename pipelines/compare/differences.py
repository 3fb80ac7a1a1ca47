"""The best group against each other one: by how much, whether that is more than noise, and how that was found out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

from pipelines.compare.config import CompareConfig
from pipelines.compare.groups import Group
from pipelines.compare.resampling import affordable, bootstrap, interval, permutation_p, within_reach
from pipelines.compare.runs import Source
from pipelines.compare.sections import Section
from pipelines.compare.seeds_test import holm, over_seeds, welch
from pmlm_core.errors import DataError
from pmlm_core.tasks.scores.paired import Entry, figure

Test = Literal["paired", "welch", "none"]
# Scores are rounded on the way through MLflow; more than this between a score and its examples is another run's file.
_ROUNDING = 0.01
ALPHA = 0.05
_ENOUGH = 2  # times the resamples without which no p could be below ALPHA
_FEW = 2  # resamples as large as what was observed: more may show that it is rarer than could be told


@dataclass(frozen=True)
class Difference:
    """The best group's mean minus another's, in points.

    Attributes:
        points: None where the scores cannot be held against each other; `apart` says why, as a verdict.
        low, high: 95 % interval; None without a test.
        p: two-sided; `holm` is adjusted for `pairs`, of which any might have been tested, see `_pairs`.
        test: "paired" over examples, "welch" over seeds, "none" where neither can be done.
        note: why it is not the paired test, or why there is no test over seeds beside it; "" where there are both.
        seeds_p: of a t test over seeds, where there are several; `seeds_holm` is adjusted for `pairs`, too.
        examples, resamples: of the paired test.
    """

    points: float | None
    test: Test = "none"
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm: float | None = None
    pairs: int | None = None
    note: str = ""
    seeds_p: float | None = None
    seeds_holm: float | None = None
    examples: int | None = None
    resamples: int | None = None
    apart: str = ""

    @property
    def verdict(self) -> str:
        """In a few words.

        A paired test asks whether these models differ. Where their seeds differ as much among themselves, that says
        little of the options they were trained with: "depends on seeds". Nor does it say anything of them where each
        side has one seed only, which might differ by as much from another one: "other seeds unknown".
        """
        if self.apart or self.holm is None:
            return self.apart or "not tested"
        if self.holm >= ALPHA:
            return "within noise"
        if self.seeds_holm is None:
            return "other seeds unknown"
        return "more than noise" if self.seeds_holm < ALPHA else "depends on seeds"


def differences_of(
    section: Section, groups: Sequence[Group], source: Source, config: CompareConfig
) -> list[Difference | None]:
    """For every group its difference to the first one; None for that one and for those without a finished run."""
    found: list[Difference | None] = [None] * len(groups)
    means = [group.best.mean if group.best.outcome == "finished" else None for group in groups]
    if not groups or means[0] is None:
        return found
    compared = [place for place, value in enumerate(means) if place and value is not None]
    tested = compared[: config.tested]
    systems = {place: _results(section, groups[place], source) for place in [0, *tested]} if tested else {}
    paired, why, apart = _same_examples(systems, section.metric)
    welches = {place: welch(groups[0].best.scores, groups[place].best.scores) for place in compared}
    could = [
        place
        for place in compared
        if place not in apart and (place not in tested or place in paired or welches[place] is not None)
    ]
    pairs = _pairs([groups[place] for place in (0, *could)])
    tests = _paired_tests(section.metric, paired, config, pairs)
    for place in compared:
        points = means[0] - (means[place] or 0.0)
        scores = groups[0].best.scores, groups[place].best.scores
        by_seeds = welches[place]
        if place in apart or 0 in apart:
            note = f"of the best, {why[0]}" if 0 in apart else why[place]
            found[place] = Difference(None, note=note, apart=apart.get(0) or apart[place])
        elif place not in tested:
            found[place] = Difference(points, note="not among the groups that are tested (--tested)")
        elif place in tests:
            found[place] = _with_seeds(replace(tests[place], points=points), *scores)
        elif by_seeds is not None:
            found[place] = Difference(
                points, "welch", by_seeds.low, by_seeds.high, by_seeds.p, note=why[place], seeds_p=by_seeds.p
            )
        else:
            found[place] = Difference(points, note=f"{why[place]}, and there are not several seeds of both")
    return _adjusted(found, pairs)


def _pairs(groups: Sequence[Group]) -> int:
    """Tests that the scores chose from when they named the best: those of every pair of K groups, K (K - 1) / 2.

    A group's own best was named by them, too. Two groups of m and n configurations count as (m + n) / 2 pairs: either
    may win, by any of its own over one of the other; that the other's best is taken makes winning only harder.
    """
    configurations = sum(
        max(1, sum(each.outcome == "finished" and bool(each.scores) for each in group.configurations))
        for group in groups
    )
    return ceil((len(groups) - 1) * configurations / 2)


def _paired_tests(
    metric: str, paired: Mapping[int, list[Entry]], config: CompareConfig, pairs: int
) -> dict[int, Difference]:
    """Of each group against the first one.

    The smallest p of a permutation test is one in its resamples, and is multiplied by `pairs`: a difference that is
    rare among the resamples asked for is drawn as many as could show it to be more than noise.
    """
    if len(paired) < 2:
        return {}
    examples = len(next(value for part, value in paired[0][0].items() if part != "kind"))
    resamples, needed = affordable(config.resamples, examples), ceil(_ENOUGH * pairs / ALPHA)
    places = list(paired)
    table = bootstrap(metric, [paired[place] for place in places], resamples, config.seed)
    found = {}
    for row, place in enumerate(places):
        if place == 0:
            continue
        low, high = interval(table[places.index(0)] - table[row])
        drawn, p = resamples, permutation_p(metric, paired[0], paired[place], resamples, config.seed)
        if p * (1 + resamples) <= 1 + _FEW and resamples < needed:
            if within_reach(needed, paired[0], paired[place]):
                drawn, p = needed, permutation_p(metric, paired[0], paired[place], needed, config.seed)
            elif pairs / (1 + resamples) >= ALPHA:
                note = f"to tell among {pairs:,} pairs takes {needed:,} resamples, too many for {examples:,} examples"
                found[place] = Difference(0.0, "none", low, high, note=f"{note}: compare fewer groups")
                continue
        found[place] = Difference(0.0, "paired", low, high, p, examples=examples, resamples=drawn)
    return found


def _results(section: Section, group: Group, source: Source) -> list[Mapping[str, Any]] | str:
    """Results by example of a group's seeds; or, in words, why it has none."""
    files: list[Mapping[str, Any]] = []
    for trial in group.best.scored:
        content = source.paired(trial.run, section.split)
        if content is None:
            return "there are no results by example"
        entry = content.get("figures", {}).get(section.metric)
        if entry is None or "ids" not in content:
            return f"the results by example have no {section.metric}"
        files.append({**content, "entry": entry, "score": trial.score})
    return files


def _same_examples(
    systems: Mapping[int, list[Mapping[str, Any]] | str], metric: str
) -> tuple[dict[int, list[Entry]], dict[int, str], dict[int, str]]:
    """Entries of groups that were scored on the same examples as the first one, and why the others were not taken.

    The third are verdicts on those whose scores are of something else: no test over seeds takes the place of this one.
    """
    apart: dict[int, str] = {}
    why = {place: found for place, found in systems.items() if isinstance(found, str)}
    files = {place: found for place, found in systems.items() if not isinstance(found, str)}
    for place, found in files.items():
        if any(_identity(file) != _identity(files.get(0, found)[0]) for file in found):
            why[place], apart[place] = "the examples are not the same", "other examples"
            continue
        try:
            amiss = next(filter(None, (_amiss(metric, file) for file in found)), "")
        except (DataError, KeyError, TypeError, ValueError) as error:
            why[place] = f"the results by example cannot be used ({error})"
            continue
        if amiss:
            why[place], apart[place] = amiss, "scored otherwise"
    if 0 in why:
        return {}, {place: why.get(place, f"of the best, {why[0]}") for place in systems}, apart
    return {place: [file["entry"] for file in found] for place, found in files.items() if place not in why}, why, apart


def _amiss(metric: str, file: Mapping[str, Any]) -> str:
    """What is wrong with results by example that do not give the run's score; "" if they do."""
    given = float(figure(metric, file["entry"]))
    if abs(given - file["score"]) <= _ROUNDING:
        return ""
    return f"the results by example give {given:.2f}, not the score {file['score']:.2f}"


def _identity(file: Mapping[str, Any]) -> tuple[Any, ...]:
    return file.get("examples"), tuple(file["ids"])


def _with_seeds(paired: Difference, first: Sequence[float], second: Sequence[float]) -> Difference:
    """A paired test with the test over seeds beside it, or why there is none."""
    seeds_p = over_seeds(first, second)
    if seeds_p is not None or paired.p is None:
        return replace(paired, seeds_p=seeds_p)
    return replace(paired, note="one seed each" if len(first) == len(second) == 1 else "seeds without any spread")


def _adjusted(found: Sequence[Difference | None], pairs: int) -> list[Difference | None]:
    """With Holm's p: of the tests over examples among themselves, and of those over seeds.

    The best was picked by its seeds as much as by its examples, from as many pairs.
    """
    known = {place: each for place, each in enumerate(found) if each is not None and each.p is not None}
    by_seeds = _holm({place: each.seeds_p for place, each in known.items() if each.seeds_p is not None}, pairs)
    by_examples = _holm({place: each.p for place, each in known.items() if each.p and each.test == "paired"}, pairs)
    told = {
        place: replace(each, holm=(by_seeds | by_examples)[place], seeds_holm=by_seeds.get(place), pairs=pairs)
        for place, each in known.items()
    }
    return [told.get(place, each) for place, each in enumerate(found)]


def _holm(ps: Mapping[int, float], pairs: int) -> dict[int, float]:
    return dict(zip(ps, holm(list(ps.values()), pairs), strict=True))
