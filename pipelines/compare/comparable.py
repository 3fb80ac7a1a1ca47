"""Which scores may be held against each other: those on the same examples, by the same scorer."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from pipelines.compare.runs import Run
from pipelines.tracking.record import fingerprint
from pmlm_core.tasks.registry import OPTIONS, TASKS, get_task
from pmlm_core.tasks.scores.versions import without_versions
from pmlm_core.tasks.scoring import FIGURES

_NOT_RECORDED = ""
T = TypeVar("T")


@dataclass(frozen=True)
class Yardstick:
    """What a run was scored on, and by what; None is what it does not say.

    Attributes:
        examples: fingerprint of the split, and the most of it that were scored.
        scorer: in words.
    """

    examples: tuple[str, str] | None
    scorer: str | None

    def apart_from(self, usual: "Yardstick", split: str) -> str:
        """What sets it apart from the usual one, in words; "" if nothing does."""
        told = []
        if self.examples is not None and self.examples != usual.examples:
            fingerprint, most = self.examples
            told.append(f"other {split} examples ({fingerprint[:8]}{f', at most {most}' * (most != 'None')})")
        if self.scorer is not None and self.scorer != usual.scorer:
            which = sha256(self.scorer.encode()).hexdigest()[:8] if self.scorer else "by what is not recorded"
            told.append(f"scored otherwise ({which})")
        return ", ".join(told)


def by_yardstick(runs: Sequence[Run], metric: str, split: str) -> list[tuple[str, list[Run]]]:
    """Runs that may be compared with each other, each time with what sets them apart: "" for the usual, the first.

    Usual is what most of them are scored on and by; of what a run does not say, it is taken to be usual.
    """
    said = [_yardstick(run, metric, split) for run in runs]
    examples, scorer = _most(each.examples for each in said), _most(each.scorer for each in said)
    filled = [Yardstick(each.examples or examples, scorer if each.scorer is None else each.scorer) for each in said]
    counts = Counter(filled)
    usual = max(counts, key=lambda each: (each.scorer != _NOT_RECORDED, counts[each]))
    parts: dict[str, list[Run]] = {}
    for run, each in zip(runs, filled, strict=True):
        parts.setdefault(each.apart_from(usual, split), []).append(run)
    return sorted(parts.items(), key=lambda part: (part[0] != "", -len(part[1]), part[0]))


def _yardstick(run: Run, metric: str, split: str) -> Yardstick:
    data = run.tags.get(f"data.{split}")  # and how many the epochs were chosen by; the final score is on all
    examples = (fingerprint(data), run.params.get("max_predict_rows", "None")) if data else None
    return Yardstick(examples, _scorer(run, metric))


def _scorer(run: Run, metric: str) -> str | None:
    try:
        told: Mapping[str, str] = json.loads(run.tags.get("scorers", "{}"))
    except ValueError:
        told = {}
    for name, text in told.items():
        if name in (metric, "squad") or metric in FIGURES.get(name, ()):
            return without_versions(text)
    # Runs of before did not say. Only questions were scored otherwise then: every one by itself, not by its source.
    return _NOT_RECORDED if _asks_questions(run.tags.get("task", "")) else None


def _asks_questions(task: str) -> bool:
    return task in TASKS and task not in OPTIONS and "bleu" in get_task(task).scorers()


def _most(values: Iterable[T | None]) -> T | None:
    known = Counter(value for value in values if value)
    return known.most_common(1)[0][0] if known else None
