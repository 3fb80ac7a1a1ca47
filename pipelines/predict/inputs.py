"""The files to predict, and the plan of a run: pieces of equally many rows, in the order of the files.

A piece is so many rows of the files one after the other, so that a small file shares a piece and a big one is cut. A
part of a file is known by the number of its first line (its record in Parquet, its question in SQuAD's JSON) and, where
the file is plain text, by its bytes, so that a worker reads only those. A packed file is unpacked from its beginning
for each of its parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pmlm_core import storage
from pmlm_core.corpus.formats import InputFormat, compression_of
from pmlm_core.corpus.rejects import REASONS
from pmlm_core.corpus.sources import LeftOut, list_sources
from pmlm_core.errors import UnknownFormError
from pmlm_core.tasks.files import form

SQUAD = "squad"
TEXTS = (".jsonl", ".tsv", ".csv")


@dataclass(frozen=True)
class Input:
    """One file.

    Attributes:
        form: ".jsonl", ".tsv", ".csv", ".parquet" or "squad".
        compression: "gzip", "zstd" or None.
        names: columns of a table, from its first line.
        roles: what a text is for -> its column.
        rows: how many there are, bad ones too.
    """

    uri: str
    size: int
    mtime_ns: int
    form: str
    compression: str | None = None
    names: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0

    @property
    def state(self) -> list[Any]:
        """What tells whether it is still the same file."""
        return [self.uri, self.size, self.mtime_ns]

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Input":
        return cls(**{**raw, "names": tuple(raw["names"])})


@dataclass(frozen=True)
class Part:
    """Lines (records, questions) `first` to `first + count - 1` of the `input`-th file; bytes of them in plain text."""

    input: int
    first: int
    count: int
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class Piece:
    """What makes one output file.

    Attributes:
        rows: of all parts.
    """

    number: int
    rows: int
    parts: tuple[Part, ...]

    def as_list(self) -> list[Any]:
        return [self.rows, [list(asdict(part).values()) for part in self.parts]]

    @classmethod
    def from_list(cls, number: int, raw: Sequence[Any]) -> "Piece":
        return cls(number, raw[0], tuple(Part(*part) for part in raw[1]))


def list_inputs(inputs: list[str], squad: bool) -> tuple[list[Input], list[LeftOut]]:
    """The files that are meant, sorted, and those left out, with the reason of each.

    Args:
        squad: whether .json means SQuAD's form and not JSON lines.

    Raises:
        NotThereError: nothing is there.
        UnknownFormError: nothing of a known form, or a file that was named is of none.
    """
    # As plain text any name will do; which form it is, is decided below.
    found: list[Input] = []
    left_out: list[LeftOut] = []
    sources = list_sources(inputs, InputFormat("text_lines"), left_out.append)
    for source in sources:
        path = storage.split_query(source.uri)[0].lower()
        shape = {".ndjson": ".jsonl", ".json": SQUAD if squad else ".jsonl"}.get(form(path), form(path))
        known = shape in (*TEXTS, SQUAD) or (shape == ".parquet" and path.endswith(".parquet"))
        if not known:
            left_out.append(LeftOut(source.uri, "unknown_form", REASONS["unknown_form"]))
            continue
        found.append(Input(source.uri, source.size, source.mtime_ns, shape, compression_of(path)))
    named = {storage.normalise(text) for text in inputs}
    unknown = [each.uri for each in left_out if each.reason == "unknown_form" and (each.uri in named or not found)]
    if unknown or not found:
        raise UnknownFormError(
            f"{(unknown or inputs)[0]}: its name tells no known form; give .jsonl, .tsv or .csv (plain, .gz or .zst), "
            "or .parquet" + ", or SQuAD's .json" * squad
        )
    return found, left_out
