"""`pmlm pretrain`: settle what is to run, refuse what cannot, start or resume it over Ray Train, say what came."""

import shutil
import uuid
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines import cluster
from pipelines.console import console, made, next_command, say, warn
from pipelines.lock import locked
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.plan import WorkPlan, identity, plan_for, settled_micro_batch
from pipelines.pretrain.progress import Progress
from pipelines.pretrain.rundir import check_unless_new, make_folder, open_run, refuse_other_run
from pipelines.run_folder import Events, RunDir
from pipelines.run_place import lies_in_store, named, worked_on_here
from pipelines.train_group import Group, fit
from pipelines.upload.background import Uploads
from pipelines.upload.claim import check_arrived
from pmlm_core import storage
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.errors import CheckpointError, DataError
from pmlm_core.model.cost import parameters


def run(config: PretrainConfig) -> None:
    """Pre-train, or go on pre-training, or say that it is done.

    Raises:
        ConfigError: options contradict those the run was started with, or the workers do not fit.
        DataError: no blocks, or blocks without rows.
        CheckpointError: blocks of another tokenizer, or a checkpoint that could not be written.
        TrainingError: the loss is not finite, or training failed more often than max_failures.
    """
    config = worked_on_here(config)
    manifest = _blocks(config)
    _check_start(config)
    data = identity(manifest)
    with locked(make_folder(config, data), "pmlm pretrain"):  # before the record: of two at once, one may make it
        run_dir, known = open_run(config, data)
        with _lease(config, run_dir):
            _run_alone(config, manifest, run_dir, known)


def _lease(config: PretrainConfig, run_dir: RunDir) -> AbstractContextManager[None]:
    if config.upload_dir is None:
        return nullcontext()
    from pipelines.pretrain.upload import COMMAND, home_of
    from pipelines.upload import lease

    return lease.kept(run_dir, home_of(run_dir, config.upload_dir), COMMAND)


def _run_alone(config: PretrainConfig, manifest: Manifest, run_dir: RunDir, known: bool) -> None:
    plan = plan_for(
        config,
        run_dir,
        manifest,
        attempt=uuid.uuid4().hex[:12],
        threads=cluster.threads_per_worker(config.cpus_per_worker, config.num_workers),
    )
    _say_what(plan, manifest, known)
    from pmlm_core.training import checkpoint

    checkpoint.sweep(run_dir.checkpoints)
    newest = newest_checkpoint(plan)
    if newest is not None and checkpoint.read_manifest(newest)["step"] >= config.max_steps:
        say(f"run {run_dir.name} is finished: all {config.max_steps} steps were done before")
        if _has_news(plan, newest):  # killed after its last checkpoint, or given another store or model name now
            _open_sink(plan, manifest).finish("FINISHED")
            _register(plan, newest)
        check_arrived(config, _catch_up(plan))
        _conclude(plan, newest)
        return
    sink, uploads = _open_sink(plan, manifest), _uploads(plan)

    def news(step: int) -> None:
        sink.ship(step)
        if uploads is not None:
            uploads.wake()

    progress = Progress(run_dir, config.max_steps, news)
    progress.start()
    status = "FAILED"
    try:
        _fit(plan)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        there = uploads is None or uploads.close(leaving=status != "FINISHED")
        progress.stop()
        shutil.rmtree(run_dir.path / "ray", ignore_errors=True)
        if status != "FINISHED":
            sink.finish(status)
    folder = checkpoint.folder_of(run_dir.checkpoints, config.max_steps)
    sink.finish(status)
    _register(plan, folder)
    check_arrived(config, there)
    _conclude(plan, folder)


def newest_checkpoint(plan: WorkPlan) -> Path | None:
    """The newest good checkpoint of the run, here or fetched from upload_dir; None if it has none yet.

    Raises:
        ConfigError, CheckpointError: as `checkpoint.newest_valid` and `upload.fetch`.
    """
    from pmlm_core.training import checkpoint

    try:
        newest = checkpoint.newest_valid(plan.run.checkpoints, lambda text: say(f"warning: {text}"))
    except checkpoint.Damaged:
        if (fetched := fetch_upload(plan, None)) is None:
            raise
        return fetched
    return fetch_upload(plan, newest)


def fetch_upload(plan: WorkPlan, newest: Path | None) -> Path | None:
    """The newest checkpoint: `newest`, or one fetched from upload_dir if that holds a newer one of this run."""
    config = plan.config
    if config.upload_dir is None:
        return newest
    from pipelines.pretrain import upload

    home = Path(config.upload_dir, plan.run.name)  # only to be named
    return upload.fetch(
        plan.run,
        config.upload_dir,
        newest,
        lambda known: refuse_other_run(known["deciding"], known["data"], home, config, plan.data),
        say,
    )


def _uploads(plan: WorkPlan) -> Uploads | None:
    """The copying of checkpoints, where it is asked for."""
    if plan.config.upload_dir is None:
        return None
    from pipelines.pretrain.upload import uploads_of

    return uploads_of(plan.run, plan.config.upload_dir, plan.config.keep_checkpoints, Events(plan.run))


def _catch_up(plan: WorkPlan) -> bool:
    """Upload what a finished run could not; whether all is there now."""
    uploads = _uploads(plan)
    if uploads is not None:
        events = Events(plan.run)
        before = events.read()[1]
        there = uploads.close()
        for event in events.read(before)[0]:
            say(event["text"])
        return there
    return True


def _fit(plan: WorkPlan) -> None:
    from pipelines.pretrain.loop import ray_worker

    config = plan.config
    group = Group(
        plan.run,
        plan.attempt,
        config.num_workers,
        plan.threads,
        config.use_gpu,
        config.max_failures,
        config.min_workers,
        config.resize_minutes,
        reads=tuple(path for path in (config.data_dir, config.init_checkpoint) if path),
    )
    fit(group, ray_worker, {"plan": plan})


def dry_run(config: PretrainConfig) -> None:
    """Say what `run` would do and what it would take, on finished blocks or, before there are any, on the paper's form.

    Raises:
        ConfigError, DataError, CheckpointError: as `run`.
    """
    from pipelines.pretrain import dry_run as costs

    config = worked_on_here(config)
    blocks = costs.read_blocks(config.data_dir)
    if blocks is not None:
        _blocks(config)
        check_unless_new(config, identity(Manifest.load(config.data_dir)))
    _check_start(config)
    if config.use_gpu:
        cluster.tell_missing_gpu()
    counted = blocks or costs.ASSUMED
    micro_batch = settled_micro_batch(config, counted.max_length, counted.most_slots)
    console().print(costs.describe(config, micro_batch, bf16=_bf16(config)), markup=False)


def _check_start(config: PretrainConfig) -> None:
    start = config.init_checkpoint
    if start is not None and storage.size(storage.join(start, "config.json")) is None:
        raise CheckpointError(f"init_checkpoint {start} is no checkpoint folder: it has no config.json")


def never_together(config: PretrainConfig) -> str | None:
    """A warning if checkpoints and held-out losses fall on different steps, or None."""
    one, other = sorted((config.eval_steps, config.save_steps))
    if not config.eval_rows or other % one == 0 or one >= config.max_steps:
        return None
    return (
        f"eval_steps {config.eval_steps} and save_steps {config.save_steps}: most checkpoints are written at steps "
        "without held-out losses, so the best is chosen among few; let one divide the other"
    )


def _bf16(config: PretrainConfig) -> bool:
    if config.precision != "auto":
        return config.precision == "bf16"
    if config.use_gpu:
        return True
    from pmlm_core.training.hardware import cpu_multiplies_in_bf16

    return cpu_multiplies_in_bf16()


def _blocks(config: PretrainConfig) -> Manifest:
    manifest = Manifest.load(config.data_dir)
    if not manifest.rows("train"):
        raise DataError(f"the blocks in {config.data_dir} have no training rows; preprocess more text")
    if config.eval_rows and not manifest.rows("validation"):
        raise DataError(
            f"the blocks in {config.data_dir} have no held-out rows; preprocess with a larger validation_fraction, "
            "or set eval_rows to 0"
        )
    return manifest


def _say_what(plan: WorkPlan, manifest: Manifest, known: bool) -> None:
    config, rows = plan.config, manifest.rows("train")
    tokens = config.max_steps * config.batch_size * manifest.tokens("train") / rows
    count = ""
    if config.init_checkpoint is None:
        size = SimpleNamespace(**config.size())
        positions = max(512, manifest.max_length)
        found = parameters(
            size, manifest.vocab_size, max_position_embeddings=positions, rel_pos_bins=config.rel_pos_bins
        )
        count = f", {found / 1e6:.1f} million parameters"
    say(
        f"{'run' if known else 'new run'} {plan.run.name}: {config.objective}{count}, {config.max_steps:,} steps of "
        f"{config.batch_size} rows, {tokens / 1e6:.1f} million tokens, "
        f"{config.max_steps * config.batch_size / rows:.2f} passes over {rows:,} rows"
    )
    fewer = "" if config.min_workers in (None, config.num_workers) else f"{config.min_workers} to "
    say(
        f"{fewer}{config.num_workers} worker{'s' * (config.num_workers != 1)} of {plan.threads} "
        f"thread{'s' * (plan.threads != 1)}{' and a GPU' * config.use_gpu}, micro-batches of {plan.micro_batch_size} "
        f"rows; everything in {named(plan.config, plan.run.path)}"
    )
    if lies_in_store(plan.config):
        say(f"worked on in {plan.run.path}")
    if warning := never_together(config):
        warn(warning)


def _open_sink(plan: WorkPlan, manifest: Manifest) -> Any:
    from pipelines.tracking.code_version import code_version
    from pipelines.tracking.sink import MlflowSink

    tags = {
        **code_version(),
        "stage": "pretrain",
        "blocks": manifest.fingerprint,
        "tokenizer": manifest.tokenizer_fingerprint,
    }
    settled = {"micro_batch_size": plan.micro_batch_size, "threads_per_worker": plan.threads}
    params = {**asdict(plan.config), **plan.config.deciding(), **settled}
    config = plan.config
    return MlflowSink(plan.run.path, config.tracking_uri, config.experiment_name, plan.run.name, params, tags)


def _has_news(plan: WorkPlan, folder: Path) -> bool:
    """Whether MLflow has not all of a finished run: figures, status, model."""
    from pipelines.tracking.record import Record
    from pipelines.tracking.redact import redact
    from pipelines.tracking.store import NONE, resolve

    uri = resolve(plan.config.tracking_uri)
    if uri == NONE:
        return False
    record = Record.load(plan.run.path)
    if record is None or record.tracking_uri != redact(uri) or not record.delivered or record.status != "FINISHED":
        return True
    return plan.config.register_model is not None and not record.has_registered(plan.config.register_model, folder)


def _register(plan: WorkPlan, folder: Path) -> None:
    """Register the final checkpoint as an MLflow model, if asked for; a store that is away gets it by `pmlm sync`."""
    config = plan.config
    if config.register_model is None:
        return
    from pipelines.tracking.models import register
    from pipelines.tracking.record import Record

    record = Record.load(plan.run.path)
    if record is not None and record.has_registered(config.register_model, folder):
        return
    version = register(plan.run.path, folder, config.register_model, config.tracking_uri)
    if version:
        say(f"registered in MLflow: {version}")


def _conclude(plan: WorkPlan, folder: Path) -> None:
    """Say what there is now, and what to do with it."""
    from pmlm_core.training import checkpoint

    if not lies_in_store(plan.config):
        _lead_to(folder, Path(plan.config.output_dir).absolute() / "final")
    held_out = checkpoint.read_state(folder).get("held_out")
    if held_out:
        names = (("AE", "ae"), ("PAR", "par"))
        parts = [
            f"{name} {held_out[f'{key}_loss']:.4f} ({held_out[f'{key}_accuracy']:.1%} right)"
            for name, key in names
            if f"{key}_loss" in held_out
        ]
        say(f"held-out loss after {plan.config.max_steps} steps: {', '.join(parts)}")
    best = checkpoint.best(plan.run.checkpoints)
    if best is not None and best != folder:
        say(f"the lowest held-out loss is that of {named(plan.config, best)}")
    where = named(plan.config, folder)
    made("checkpoint", where)
    next_command(f'pmlm fill --model {where} "The old [MASK] went into the house."')


def _lead_to(folder: Path, link: Path) -> None:
    was = link.resolve() if link.exists() else None
    if was != folder.resolve():
        _point(link, folder)
        if was is not None and was.parent != folder.resolve().parent:
            say(f"{link} leads to this run now; it led to {was}")


def _point(link: Path, folder: Path) -> None:
    """Let OUTPUT_DIR/final be this checkpoint: that of the command given last."""
    temporary = link.with_name(f".final-{uuid.uuid4().hex[:8]}")
    try:
        temporary.symlink_to(folder.relative_to(link.parent))
        temporary.rename(link)
    except OSError:
        temporary.unlink(missing_ok=True)  # a file system without links: the folder's own name is said anyway
