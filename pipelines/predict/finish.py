"""The end of a run: all pieces joined, the list of what was left out, and what the user is told."""

import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.console import counted, made, next_command, say, warn
from pipelines.predict.config import PredictConfig
from pipelines.predict.finetuned import Finetuned
from pipelines.predict.piece import LEDGER, PREDICTIONS, REJECTS, Done, file_of, load_done
from pipelines.predict.plan import Plan
from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.tasks.lines import lines

MERGED, SUMMARY = "predictions.jsonl", "summary.json"


def finish(plan: Plan, config: PredictConfig, finetuned: Finetuned, output_dir: str, done: Mapping[int, Done]) -> None:
    """Write `rejects.jsonl`, `predictions.jsonl` and `summary.json`, and say what came."""
    counts: Counter[str] = Counter(entry["reason"] for entry in plan.broken)
    for each in done.values():
        counts.update(each.rejects)
    rejects = storage.join(output_dir, f"{REJECTS}.jsonl")
    storage.write_lines(rejects, _rejects(plan, output_dir, done))
    predictions, nbytes = (sum(getattr(each, name) for each in done.values()) for name in ("predictions", "bytes"))
    merged = storage.join(output_dir, MERGED)
    if config.merge and storage.size(merged) != nbytes:
        _merge(plan, output_dir, merged)
    summary: dict[str, Any] = {
        "task": finetuned.task.name,
        "kind": finetuned.task.kind,
        "model": finetuned.source.described(),
        "files": len(plan.inputs),
        "rows": plan.rows,
        "predictions": predictions,
        "pieces": len(plan.pieces),
        "rejects": dict(sorted(counts.items())),
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(output_dir, SUMMARY), text.encode())
    _remove_leftovers(output_dir)
    say(f"{counted(predictions, 'prediction')} for {counted(plan.rows, 'row')} of {counted(len(plan.inputs), 'file')}")
    if counts:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.most_common())
        warn(f"{counted(counts.total(), 'bad row')} set aside ({reasons}), listed in {rejects}")
    parts = storage.join(output_dir, PREDICTIONS)
    made("predictions", merged if config.merge else f"{parts} (in the order of their names)")
    if not storage.is_remote(output_dir):
        next_command(f"head -n 3 {merged if config.merge else file_of(output_dir, 0)}")


def refuse_known_rejects(plan: Plan, output_dir: str, done: Mapping[int, Done]) -> None:
    """Under --strict, what an earlier run without it set aside.

    Raises:
        DataError: there is something.
    """
    line = next(iter(_rejects(plan, output_dir, done)), None)
    if line is not None:
        raise DataError(f"{json.loads(line)['detail']}; mend it, or leave out --strict to go on without it")


def _rejects(plan: Plan, output_dir: str, done: Mapping[int, Done]) -> Iterator[str]:
    """Lines of `rejects.jsonl`: files that end early, then rows in the order of the input."""
    for entry in plan.broken:
        yield json.dumps(entry, ensure_ascii=False)
    for number in sorted(done):
        if done[number].rejects:
            yield from lines(file_of(output_dir, number, REJECTS))


def _merge(plan: Plan, output_dir: str, merged: str) -> None:
    folder = tempfile.gettempdir() if storage.is_remote(output_dir) else storage.absolute(output_dir)
    temporary = Path(folder) / f".{MERGED}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as sink:
            for piece in plan.pieces:
                file_system, path = storage.resolve(file_of(output_dir, piece.number))
                with file_system.open_input_stream(path, compression=None) as source:
                    shutil.copyfileobj(source, sink, 8 << 20)
            sink.flush()
            os.fsync(sink.fileno())
        storage.publish(temporary, merged)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(output_dir: str) -> None:
    """Delete half-written files of killed runs; this one holds the lock."""
    if not storage.is_remote(output_dir):
        for folder in ("", PREDICTIONS, REJECTS, LEDGER):
            for path in Path(storage.absolute(output_dir), folder).glob(".*.tmp"):
                path.unlink(missing_ok=True)


def known(plan: Plan, output_dir: str) -> dict[int, Done]:
    """What is finished already, by number."""
    if not any(True for _ in storage.names_in(storage.join(output_dir, LEDGER))):
        return {}
    found = ((piece.number, load_done(output_dir, piece.number)) for piece in plan.pieces)
    return {number: done for number, done in found if done is not None}
