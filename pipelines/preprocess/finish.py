"""The end of a run: the list of what was left out, then the manifest, then what the user is told."""

import hashlib
import json
import time
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rich.table import Table

from pipelines.console import console, counted, made, say, warn
from pipelines.preprocess.job import TOKENIZER, Job
from pipelines.quantities import size_text
from pipelines.tracking.code_version import code_version
from pmlm_core import storage
from pmlm_core.corpus.holdout import TRAIN, VALIDATION
from pmlm_core.corpus.ledger import LEDGER, LedgerRow, load_row, save_row
from pmlm_core.corpus.manifest import Manifest, ShardEntry, kept_in
from pmlm_core.corpus.rejects import REASONS
from pmlm_core.corpus.reports import rejected_items
from pmlm_core.errors import DataError

REJECTS = "rejects.jsonl"
_LEFTOVER_SECONDS = 3600


def finish(job: Job) -> Manifest:
    """Write `rejects.jsonl` and `manifest.json`; every piece must be finished.

    Raises:
        DataError: nothing at all could be read.
    """
    assert not job.missing
    unique, doubles = _unique(job)
    rejects = _count([row.rejects["counts"] for row in unique])
    if doubles:
        rejects["duplicate"] = sum(len(job.pieces[number].spans) for number in doubles)
    for left_out in job.skipped:
        rejects[left_out.reason] = rejects.get(left_out.reason, 0) + 1
    _note_copies(job, doubles)
    first = _write_rejects(job)
    splits = {split: _entries(unique, split) for split in (TRAIN, VALIDATION)}
    if not splits[TRAIN]:
        raise DataError(
            f"no training rows came of the input ({counted(len(job.sources), 'file')}): "
            f"{_listed(rejects) or 'all text was held out'}{first}; {storage.join(job.output_dir, REJECTS)} lists them"
        )
    manifest = Manifest(
        tokenizer_fingerprint=job.tokenizer.fingerprint,
        vocab_size=job.tokenizer.vocab_size,
        special_ids=job.tokenizer.special_ids,
        max_length=job.options.max_length,
        views=job.options.views,
        splits=splits,
        config=_deciding(asdict(job.options)) | {"input_fingerprint": _input_fingerprint(job)},
        code_version=" ".join(code_version().values()),
        inputs=[{"uri": source.uri, "bytes": source.size, "form": source.kind} for source in job.sources],
        counts=_count([row.counts for row in unique]),
        rejects=rejects,
    )
    if job.earlier is not None and job.earlier.fingerprint != manifest.fingerprint:
        job.earlier.keep(job.output_dir)
    manifest.save(job.output_dir)
    remove_leftovers(job.output_dir)
    return manifest


def tell(job: Job, manifest: Manifest) -> None:
    """Print what was made and what was left out."""
    counts = manifest.counts
    table = Table(title="blocks", title_justify="left")
    for heading in ("split", "rows", "tokens", "masked a view", "shards", "MB"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, entries in manifest.splits.items():
        masked, nbytes = sum(e.masked_tokens for e in entries), sum(e.bytes for e in entries)
        numbers = (manifest.rows(split), manifest.tokens(split), masked, len(entries))
        table.add_row(split, *(f"{n:,}" for n in numbers), f"{nbytes / 1e6:,.1f}")
    console().print(table)
    say(
        f"{counts['documents']:,} documents, {size_text(counts['text_bytes'])} of text, "
        f"{counts['text_tokens']:,} tokens ({counts['text_bytes'] / max(1, counts['text_tokens']):.2f} bytes each)"
    )
    if counts["dropped_tokens"]:
        say(f"{counts['dropped_tokens']:,} tokens stood in windows with nothing to mask and were dropped")
    if manifest.rejects:
        total = sum(manifest.rejects.values())
        warn(f"{total:,} items were set aside; they are listed in {storage.join(job.output_dir, REJECTS)}")
        for reason, count in sorted(manifest.rejects.items(), key=lambda item: -item[1]):
            say(f"  {count:>9,}  {reason}: {REASONS[reason]}")
        if lost := counts.get("lost_rows"):
            say(f"  {lost:,} rows of Parquet files are lost with them")
    else:
        say("nothing was set aside")
    if not manifest.rows(VALIDATION):
        warn("no text was held out for validation; raise --validation_fraction if training is to be evaluated")
    stale = _stale_shards(job, manifest)
    if stale:
        where = storage.join(job.output_dir, "shards")
        kept = kept_in(job.output_dir)
        of = f"; runs on the blocks of before need them ({', '.join(kept)})" if kept else ""
        say(f"{stale:,} shards in {where} are not of these blocks{of}")
    made("blocks", job.config.output_dir)


def _unique(job: Job) -> tuple[list[LedgerRow], list[int]]:
    """Rows in the order of the input; numbers of pieces whose bytes were there before."""
    seen: set[str] = set()
    unique, doubles = [], []
    for number in range(len(job.pieces)):
        row = job.finished[number]
        if row.key in seen:
            doubles.append(number)
        else:
            unique.append(row)
        seen.add(row.key)
    return unique, doubles


def _note_copies(job: Job, doubles: list[int]) -> None:
    """Give the ledger row of a piece that is there several times all its names, so that the next run knows them all.

    Workers cannot: two of them may do the copies at the same time, and each would overwrite the other's.
    """
    copied = {job.finished[number].key for number in doubles}
    names: dict[str, list[list[dict[str, Any]]]] = {key: [] for key in copied}
    for number in range(len(job.pieces)):
        if job.finished[number].key in copied:
            names[job.finished[number].key].append(job.finished[number].spans)
    for key, (first, *others) in names.items():
        row = load_row(job.output_dir, key)
        if row is not None and (row.spans != first or row.aliases != others):
            save_row(job.output_dir, replace(row.at(first), aliases=others))


def _write_rejects(job: Job) -> str:
    """List what was left out; the first of it in words, for the end of a sentence."""
    rows = (job.finished[number] for number in range(len(job.pieces)))
    left_out = rejected_items(rows, lambda k: load_row(job.output_dir, k))
    unread = ({"file": each.uri, "row": None, "reason": each.reason, "detail": each.detail} for each in job.skipped)
    items = chain(left_out, unread)
    first = next(items, None)
    lines = (json.dumps(item, ensure_ascii=False) for item in chain([] if first is None else [first], items))
    storage.write_lines(storage.join(job.output_dir, REJECTS), lines)
    if first is None:
        return ""
    row = "" if first["row"] is None else f", row {first['row']}"
    return f", the first in {first['file']}{row}: {first['detail']}"


def _input_fingerprint(job: Job) -> str:
    """SHA-256 (hex) of the digests of all pieces in order: of what was read, wherever it lay."""
    digests = [job.finished[number].digest for number in range(len(job.pieces))]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _entries(rows: list[LedgerRow], split: str) -> list[ShardEntry]:
    return [row.shards[split] for row in rows if split in row.shards]


def _count(counts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, number in each.items():
            total[name] = total.get(name, 0) + number
    return total


def _deciding(options: dict[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in options.items() if k != "fmt"}, **{f"input_{k}": v for k, v in options["fmt"].items()}}


def _listed(rejects: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(rejects.items()))


def remove_leftovers(output_dir: str) -> None:
    """Delete half-written files of killed runs; one younger than an hour may be another run's work."""
    if storage.is_remote(output_dir):
        return
    folder = Path(storage.absolute(output_dir))
    for path in chain(*((folder / name).glob(".*.tmp") for name in ("", "shards", LEDGER, TOKENIZER))):
        try:
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()
        except FileNotFoundError:  # another run ended and removed it
            continue


def _stale_shards(job: Job, manifest: Manifest) -> int:
    used = {entry.path.split("/")[-1] for entries in manifest.splits.values() for entry in entries}
    there = storage.names_in(storage.join(job.output_dir, "shards"))
    return sum(name.endswith(".arrow") and name not in used for name in there)
