"""A task's splits as they lie on disk: read once to count, to fingerprint, and to set bad rows aside."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pmlm_core.corpus.order import permute
from pmlm_core.errors import DataError
from pmlm_core.randomness import key
from pmlm_core.tasks.base import BadRow, Example, Task


@dataclass(frozen=True)
class Split:
    """What was found of a split.

    Attributes:
        examples: good ones in the files.
        used: how many of them are taken; a subset is drawn by a fixed key, the same for every seed.
        characters: of all texts of the good examples.
        fingerprint: SHA-256 (hex) of the content of all good examples, in order.
        bad: rows that no example could be made of.
    """

    name: str
    examples: int
    used: int
    characters: int
    fingerprint: str
    bad: int = 0

    @property
    def missing(self) -> int:
        """Rows in the files that are not taken."""
        return self.examples + self.bad - self.used

    def chosen(self) -> np.ndarray | None:
        """Places of the examples that are taken, ascending, or None for all."""
        if self.used == self.examples:
            return None
        return np.sort(permute(np.arange(self.used), self.examples, key("subset")))

    def identity(self) -> str:
        """Content and choice in one line, for keys."""
        return f"{self.fingerprint} {self.used}"


@dataclass
class Rejects:
    """The rows that were left out, by split."""

    rows: list[tuple[str, BadRow]] = field(default_factory=list)

    def of(self, split: str) -> Counter[str]:
        """How many of a split, by reason."""
        return Counter(row.reason for name, row in self.rows if name == split)

    def first(self, split: str) -> str:
        """What is wrong with the first of a split."""
        return next(row.detail for name, row in self.rows if name == split)

    def lines(self) -> Iterator[str]:
        """JSON lines, as `rejects.jsonl` holds them."""
        for name, row in self.rows:
            yield json.dumps({"split": name, **vars(row)}, ensure_ascii=False)


def survey(task: Task, data_dir: str, split: str, limit: int | None, rejects: Rejects, *, strict: bool) -> Split:
    """Read a split through and keep nothing of it but its figures.

    Raises:
        DataError: no file, a missing column, no good example, or, if `strict`, a bad row.
    """
    digest = hashlib.sha256()
    examples = characters = bad = 0
    for found in task.read(data_dir, split):
        if isinstance(found, BadRow):
            if strict:
                raise DataError(f"{found.detail}; mend it, or leave out --strict to go on without it")
            rejects.rows.append((split, found))
            bad += 1
            continue
        examples += 1
        values = vars(found)
        characters += sum(len(value) for value in values.values() if isinstance(value, str))
        # `row` is for messages only: the same examples in another file are the same.
        content = [values[name] for name in sorted(values) if name != "row"]
        digest.update(json.dumps(content, ensure_ascii=True).encode() + b"\n")
    if not examples:
        counts = ", ".join(f"{reason} ({count})" for reason, count in rejects.of(split).most_common())
        raise DataError(
            f"split '{split}' of task '{task.name}' in {data_dir} has no usable example"
            + (f"; left out: {counts}, the first: {rejects.first(split)}" if counts else "")
        )
    used = examples if limit is None else min(limit, examples)
    return Split(split, examples, used, characters, digest.hexdigest(), bad)


def predictions_name(task: Task, split: Split) -> str:
    """What files of a split's predictions are named by: the split, unless they could be handed in and rows are missing.

    An official name would let a benchmark's server, or its user, take a part for the whole.
    """
    return f"part-of-{split.name}" if split.missing and split.name not in task.labelled else split.name


def read_chosen(task: Task, data_dir: str, split: Split, first: int = 0, stop: int | None = None) -> Iterator[Example]:
    """The examples that are taken, in the order of the file: those numbered `first` up to `stop` among them.

    Raises:
        DataError: the files have changed since they were surveyed.
    """
    stop = split.used if stop is None else stop
    chosen = split.chosen()
    wanted: Any = np.arange(first, stop) if chosen is None else chosen[first:stop]
    left, next_wanted = iter(wanted.tolist()), -1
    place = -1
    for found in task.read(data_dir, split.name):
        if isinstance(found, BadRow):
            continue
        place += 1
        if next_wanted < place:
            following = next(left, None)
            if following is None:
                return
            next_wanted = following
        if place == next_wanted:
            yield found
    if place < next_wanted or next(left, None) is not None:
        raise DataError(
            f"split '{split.name}' in {data_dir} holds {place + 1} examples, and held {split.examples} when this "
            "command began: the files were changed; give the same command again"
        )
