"""The manifest of a set of blocks: what made it, what it holds, what was refused. Opening blocks reads nothing else."""

import json
import re
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any

from pmlm_core import storage
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import DataError, NotThereError
from pmlm_core.inside import leads_outside

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_KEPT = re.compile("manifest-[0-9a-f]{12}[.]json")
_DIGEST = re.compile("[0-9a-f]{64}")


def kept_name(fingerprint: str) -> str:
    """Where a manifest lies after another has taken its place."""
    return f"manifest-{fingerprint[:12]}.json"


def kept_in(folder: str) -> list[str]:
    """Names of the manifests in `folder` whose places others have taken."""
    return sorted(name for name in storage.names_in(folder) if _KEPT.fullmatch(name))


@dataclass(frozen=True)
class ShardEntry:
    """One shard of a split.

    Attributes:
        path: relative to the manifest's folder.
        rows: windows in it.
        tokens: tokens of all windows, specials included.
        masked_tokens: masked positions of view 0 (the other views differ by about one a window).
        bytes: size of the file.
        sha256: of the file, hexadecimal.
        part_bytes: sizes of the parts that a store can be asked for by themselves, in order: part b ends with record
            batch b. Empty in blocks of before 2026-11-26, whose shards are fetched whole.
        part_sha256: of every part, hexadecimal.
    """

    path: str
    rows: int
    tokens: int
    masked_tokens: int
    bytes: int
    sha256: str
    part_bytes: list[int] = field(default_factory=list)
    part_sha256: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> "ShardEntry":
        """An entry of a file, which may come from elsewhere.

        Raises:
            DataError: its path or digest, by which files are named, leads out of the folder.
            TypeError: it lacks a field.
        """
        entry = cls(**raw)
        # Digests name files of the local cache.
        digests = [entry.sha256, *entry.part_sha256]
        wrong = [digest for digest in digests if not _DIGEST.fullmatch(str(digest))]
        if leads_outside([entry.path]) is not None or wrong:
            named = wrong[0] if wrong else entry.sha256
            raise DataError(f"a shard is named {entry.path!r} with digest {named!r}: none of this folder's")
        if not all(isinstance(size, int) and size >= 0 for size in entry.part_bytes):
            raise DataError(f"shard {entry.path} has parts of {entry.part_bytes} bytes; run `pmlm preprocess` again")
        return entry


@dataclass(frozen=True)
class Manifest:
    """All that is known of a set of blocks.

    Attributes:
        tokenizer_fingerprint: of the tokenizer whose ids the blocks hold.
        splits: "train" and "validation", shards in the order that numbers the rows.
        config: the preprocessing options; `code_version`, `inputs`: what made the blocks out of what.
        counts: documents, tokens, rejects ... whatever the stage counted.
        rejects: reason -> how many.
        fingerprint: of the content; derived from the shards' digests when left empty.
    """

    tokenizer_fingerprint: str
    vocab_size: int
    special_ids: SpecialIds
    max_length: int
    views: int
    splits: dict[str, list[ShardEntry]]
    config: dict[str, Any] = field(default_factory=dict)
    code_version: str = ""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", self._content_fingerprint())

    def _content_fingerprint(self) -> str:
        content = {split: [[e.sha256, e.rows] for e in entries] for split, entries in self.splits.items()}
        what = [self.format_version, self.tokenizer_fingerprint, self.max_length, self.views, content]
        return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def rows(self, split: str) -> int:
        """Windows of a split; 0 if there is no such split."""
        return sum(entry.rows for entry in self.splits.get(split, []))

    def tokens(self, split: str) -> int:
        """Tokens of a split, specials included."""
        return sum(entry.tokens for entry in self.splits.get(split, []))

    def to_json(self) -> str:
        """Equal manifests give equal text."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = MANIFEST) -> "Manifest":
        """Read what `to_json` wrote.

        Args:
            text: the JSON document.
            where: name of the file, for messages.

        Raises:
            DataError: no JSON, a missing field, or a format version this code does not know.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise DataError(
                f"{where} is not valid JSON ({error}); run `pmlm preprocess` again to rebuild it."
            ) from None
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise DataError(
                f"{where} has format version {version!r}, this pmlm reads version {FORMAT_VERSION}; "
                "run `pmlm preprocess` again with this version."
            )
        try:
            raw["special_ids"] = SpecialIds(**raw["special_ids"])
            raw["splits"] = {split: [ShardEntry.read(e) for e in entries] for split, entries in raw["splits"].items()}
            known = {f.name for f in fields(cls)}
            return cls(**{name: value for name, value in raw.items() if name in known})
        except DataError as error:
            raise DataError(f"{where}: {error}; do not use these blocks, run `pmlm preprocess` again.") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where} lacks a field or holds a wrong one: {error}; run `pmlm preprocess` again."
            ) from None

    def save(self, folder: str) -> None:
        """Write `manifest.json` into `folder` (local or object store), whole or not at all."""
        storage.write_bytes(storage.join(folder, MANIFEST), self.to_json().encode())

    def keep(self, folder: str) -> None:
        """Write it under a name of its own: where another takes its place, a run on these blocks may want them back."""
        storage.write_bytes(storage.join(folder, kept_name(self.fingerprint)), self.to_json().encode())

    @classmethod
    def load(cls, folder: str) -> "Manifest":
        """Read the manifest of `folder`.

        Raises:
            DataError: there is none (preprocessing has not finished there), or it cannot be used.
        """
        where = storage.join(folder, MANIFEST)
        content = storage.read_if_there(where)
        if content is None:
            raise NotThereError(
                f"{folder} holds no {MANIFEST}, so no finished blocks; run `pmlm preprocess` with this output_dir "
                "(it does only what is missing)."
            )
        return cls.from_json(content, where)
