"""`pmlm preprocess`: raw text to packed, masked, immutable Arrow blocks with a manifest."""

import contextlib
import shlex
import time
from pathlib import Path

from pipelines.cluster import connected, cpus_to_start
from pipelines.console import counted, say, warn
from pipelines.left_out import told_left_out
from pipelines.lock import locked
from pipelines.next_stage import in_recipe, next_stage
from pipelines.output_folder import beside
from pipelines.piece_progress import PieceProgress
from pipelines.preprocess.config import PreprocessConfig
from pipelines.preprocess.finish import finish, remove_leftovers, tell
from pipelines.preprocess.job import TOKENIZER, Job, check_still_ours, prepare
from pipelines.quantities import duration, size_text
from pmlm_core import storage
from pmlm_core.errors import DataError, UnknownFormError

_WHOLE_FILE_WARNING = 2 << 30
_TRIAL = "--preset tiny --batch_size 16 --max_steps 100"
"""Of pre-training: a minute or so on two cores. The defaults, made for long runs, would take days there."""


def run(config: PreprocessConfig) -> None:
    """Make the blocks `config` asks for; what an earlier run finished is kept.

    Raises:
        ConfigError, DataError: what is wrong, where, and the way out; what was finished is kept.
    """
    job = prepare(config)
    _announce(job)
    if config.strict:
        _refuse_known_rejects(job)
    with _alone_in(job.output_dir):
        check_still_ours(job)
        remove_leftovers(job.output_dir)  # they may be what fills the disk
        # Workers read the tokenizer from the output folder, which every machine of a cluster must see anyway.
        job.tokenizer.save(storage.join(job.output_dir, TOKENIZER), model_max_length=config.max_length)
        if job.missing:
            with connected(cpus_to_start(config.num_workers) if config.num_workers else None):
                _do_missing(job)
        check_still_ours(job)  # a store has no locks
        tell(job, finish(job))


def leads_to(config: PreprocessConfig, recipe: str | None) -> str:
    """The command that trains on these blocks: the recipe's, or a short trial in a folder of its own."""
    if in_recipe(recipe, "pretrain"):
        return next_stage("pretrain", "pretrain", recipe, "preprocess", config, {"data_dir": "output_dir"})
    blocks = config.output_dir
    runs = "outputs/trial" if storage.is_remote(blocks) else beside(blocks, "trial")
    return (
        f"pmlm pretrain --data_dir {shlex.quote(blocks)} --output_dir {shlex.quote(runs)} {_TRIAL} "
        "(a short trial; then a larger preset and more steps, with --dry_run first to see what they take)"
    )


def _alone_in(output_dir: str) -> contextlib.AbstractContextManager[None]:
    """Keep a second command out of a folder on disk: each would replace the other's manifest."""
    if storage.is_remote(output_dir):
        return contextlib.nullcontext()
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    return locked(output_dir, "pmlm preprocess", named_by="output_dir")


def dry_run(config: PreprocessConfig) -> None:
    """Say what would run and what it would take, from a sample of the input; writes nothing and starts no Ray."""
    from pipelines.preprocess.estimate import estimate

    job = prepare(config)
    _announce(job)
    if config.strict:
        _refuse_known_rejects(job)
    if _same_as_earlier(job):
        say(f"the blocks in {job.output_dir} are finished: nothing is left to do")
        return
    estimate(job)


def _announce(job: Job) -> None:
    size = sum(source.size for source in job.sources)
    say(
        f"{counted(len(job.sources), 'file')}, {size_text(size)} as stored, in {counted(len(job.pieces), 'piece')}"
        + (f"; finished already: {len(job.finished):,}" if job.finished else "")
    )
    if job.skipped:
        warn(told_left_out(job.skipped))
    for source in job.sources:
        whole = source.compression or source.kind == "text_files"
        if whole and source.size > _WHOLE_FILE_WARNING:
            warn(f"{source.uri} cannot be cut and will occupy one worker for long; store it as several files")
    if job.earlier and not _same_as_earlier(job):
        say("the manifest there is of other input; it stays valid until this run replaces it")


def _same_as_earlier(job: Job) -> bool:
    used = {entry.path for entries in job.earlier.splits.values() for entry in entries} if job.earlier else set()
    now = {entry.path for row in job.finished.values() for entry in row.shards.values()}
    return not job.missing and used == now


def _refuse_known_rejects(job: Job) -> None:
    if job.skipped:
        first = job.skipped[0]
        wrong = UnknownFormError if first.reason in ("unknown_form", "plain_text") else DataError
        raise wrong(f"{first} (--strict): give --input_format, name other files, or leave out --strict")
    # What an earlier run without --strict left out: doing those pieces again finds the place and stops there.
    job.finished = {number: row for number, row in job.finished.items() if not row.rejects["counts"]}


def _do_missing(job: Job) -> None:
    from pipelines.preprocess.ray_stage import run_pieces

    missing = {number: job.pieces[number] for number in job.missing}
    errors: list[str] = []
    peak = 0
    started = time.monotonic()
    total = sum(piece.weight for piece in missing.values())
    with PieceProgress("preprocessing", total, len(missing)) as progress:
        outcomes = run_pieces(
            missing,
            job.options,
            storage.join(job.output_dir, TOKENIZER),
            job.output_dir,
            tokenizer_fingerprint=job.tokenizer.fingerprint,
            strict=job.config.strict,
            num_workers=job.config.num_workers,
        )
        for outcome in outcomes:
            peak = max(peak, outcome.peak_bytes)
            if outcome.row is not None:
                job.finished[outcome.number] = outcome.row
                progress.done(missing[outcome.number].weight, sum(outcome.row.rejects["counts"].values()))
            elif outcome.fatal:
                raise DataError(f"{outcome.error}\nWhat is finished is kept; the same command goes on from there.")
            else:
                errors.append(outcome.error)
    if errors:
        raise DataError(
            f"{len(errors)} of {counted(len(missing), 'piece')} could not be done, so there is no new manifest; the "
            "others are kept, and the same command does only these:\n"
            + "\n".join(f"  {error}" for error in errors[:10])
        )
    seconds = time.monotonic() - started
    done = [job.finished[number] for number in missing]
    read = sum(row.counts["input_bytes"] for row in done)
    say(
        f"read {size_text(read)} in {duration(seconds)} ({size_text(read / seconds)} a second); largest worker "
        f"{size_text(peak)}"
    )
