"""Folders of a fine-tuning run: one for the run, one below it for each seed.

OUTPUT_DIR/RUN_NAME/
    run.json         options, data and checkpoint it was started with; changed ones are refused
    rejects.jsonl    rows that were left out, and why
    scores.json      all finished seeds: mean, median, spread
    seed-0/
        metrics.jsonl, events.jsonl, checkpoints/ (while training)
        model/           the best epoch: a Hugging Face folder with tokenizer and pmlm_task.json
        predictions/     in the official submission form
        paired/          what paired tests between runs are computed from (pmlm_core/tasks/scores/paired.py)
        scores.json      written last: it says that the seed is finished
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.console import counted
from pipelines.finetune.job import Job, changed
from pipelines.run_folder import RUN_FILE, RunDir, check_is_new, unreadable, write_record
from pipelines.tracking.redact import redact, redacted
from pmlm_core import storage
from pmlm_core.errors import ConfigError
from pmlm_core.tasks.scores.versions import others

SCORES, REJECTS, MODEL, PREDICTIONS = "scores.json", "rejects.jsonl", "model", "predictions"


def open_run(job: Job) -> bool:
    """Write the run's record, or make sure that the one there is this run's; see `open_record`."""
    return open_record(
        job.run, job.identity(), {"config": redacted(asdict(job.config)), "source": job.source.described()}
    )


def make_folder(run: RunDir, identity: dict[str, Any]) -> None:
    """The folder to lock before `open_record`; it refuses what that would, for a lock leaves a file in there.

    Raises:
        ConfigError: as `open_record`.
    """
    _is_there(run, identity)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir: {run.path} cannot be made: {error.strerror}") from None


def open_record(run: RunDir, identity: dict[str, Any], more: dict[str, Any]) -> bool:
    """Make the folder of what `identity` says, or make sure that the one there is that; returns whether it was there.

    Raises:
        ConfigError: it was started with other options, data or checkpoint.
    """
    if _is_there(run, identity):
        return True
    try:
        write_record(run, {**more, "identity": identity, "started": time.time()})
    except OSError as error:
        raise ConfigError(f"output_dir: {run.path} cannot be made: {error.strerror}") from None
    return False


def _is_there(run: RunDir, identity: dict[str, Any]) -> bool:
    if run.record.exists():
        check_same(run, identity)
        return True
    check_is_new(run.path)
    return False


def check_same(run: RunDir, identity: dict[str, Any]) -> None:
    """Refuse another identity in the folder of a run or sweep; a folder that is not there yet is fine."""
    if not run.record.exists():
        return
    try:
        before = json.loads(run.record.read_text(encoding="utf-8"))["identity"]
        differences = changed(before, identity)
    except OSError as error:
        raise unreadable(run.record, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{run.path / RUN_FILE} cannot be read ({error!r}): choose another run_name") from None
    _refuse(differences, run.name, str(run.path.parent))


def refuse_other(before: dict[str, Any], identity: dict[str, Any], home: str) -> None:
    """Refuse another identity than that of the run or sweep whose copies lie in `home`.

    Raises:
        ConfigError: it was started with other options, data or checkpoint.
        KeyError, TypeError: `before` is no identity.
    """
    above, _, name = redact(home).rpartition("/")
    _refuse(changed(before, identity), name, above)


def _refuse(differences: list[str], name: str, above: str) -> None:
    if differences:
        raise ConfigError(
            f"'{name}' in {above} was started otherwise: {'; '.join(differences)}. To go on with it, "
            "give the same; for a new one, choose another run_name or leave run_name out"
        )


def seed_folder(run: RunDir, seed: int) -> RunDir:
    return RunDir(run.path / f"seed-{seed}")


def read_scores(run: RunDir) -> dict[str, Any] | None:
    """Scores of a finished seed, None if it is not finished."""
    path = run.path / SCORES
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read ({error}); remove it, and the seed is finished anew") from None


def check_scorers(job: Job, finished: Mapping[int, Mapping[str, Any] | None]) -> None:
    """Refuse to add seeds to others that were scored otherwise: their mean would be one of two measures.

    Args:
        finished: scores by seed, None for those that are still to be trained.

    Raises:
        ConfigError: naming the seeds.
    """
    ours = job.task.scorers()
    found = {seed: others(ours, scores.get("scorers", {})) for seed, scores in finished.items() if scores}
    odd = [seed for seed, names in found.items() if names]
    if odd and not all(finished.values()):
        folders = ", ".join(str(seed_folder(job.run, seed).path) for seed in odd)
        there = "" if job.config.upload_dir is None else ", and their copies in upload_dir,"
        raise ConfigError(
            f"{job.run.path}: {counted(len(odd), 'seed')} ({', '.join(map(str, odd))}) had another scorer "
            f"'{found[odd[0]][0]}', of an older pmlm, than new ones would have: no mean can be taken over both. Give "
            f"another --run_name, or remove {folders}{there} to train them again"
        )


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    storage.write_bytes(str(path), (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
