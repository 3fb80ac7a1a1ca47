"""What the doctor says: checks, one line each, and findings with their remedy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Severity(StrEnum):
    """How bad it is: errors stop a run or spoil it, warnings may."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """Something to mend: what it is, on which node, and the way out in one sentence."""

    severity: Severity
    what: str
    remedy: str
    where: str = ""


@dataclass(frozen=True)
class Check:
    """A group of questions and what came of it: a summary for its line, and findings."""

    name: str
    summary: str
    findings: tuple[Finding, ...] = ()

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        found = {finding.severity for finding in self.findings}
        return next((each for each in (Severity.ERROR, Severity.WARNING) if each in found), Severity.OK)


def error(what: str, remedy: str, where: str = "") -> Finding:
    """A finding that would stop a run or spoil it."""
    return Finding(Severity.ERROR, what, remedy, where)


def warning(what: str, remedy: str, where: str = "") -> Finding:
    """A finding that may cost time or surprise."""
    return Finding(Severity.WARNING, what, remedy, where)


def usual(values: Iterable[T]) -> T:
    """The most frequent value; of several, the first that came."""
    every = list(values)
    return max(every, key=every.count)


def odd_ones(values: Mapping[str, T]) -> dict[str, T]:
    """Those that differ from the usual value, by node.

    >>> odd_ones({"a": 1, "b": 2, "c": 1})
    {'b': 2}
    """
    if not values:
        return {}
    common = usual(values.values())
    return {name: value for name, value in values.items() if value != common}


def named(nodes: Iterable[str]) -> str:
    """Some nodes in a sentence, the first four by name.

    >>> named("abcdef")
    'a, b, c, d and 2 more'
    """
    every = list(nodes)
    return ", ".join(every[:4]) + (f" and {len(every) - 4} more" if len(every) > 4 else "")
