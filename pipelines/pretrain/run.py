"""`pmlm pretrain`: settle what is to run, refuse what cannot, start or resume it over Ray Train, say what came."""

import shutil
import uuid
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from pipelines import cluster
from pipelines.console import console, say, warn
from pipelines.leaving import in_a_hurry
from pipelines.lock import locked
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.plan import WorkPlan, as_before, identity, plan_for, settled_micro_batch
from pipelines.pretrain.progress import Progress
from pipelines.pretrain.rundir import Start, check_unless_new, make_folder, open_run, refuse_other_run, started_alike
from pipelines.pretrain.tell import conclude, tell_start
from pipelines.pretrain.tokenizer_beside import tokenizer_files
from pipelines.pretrain.tracking import has_news, open_sink, register_model
from pipelines.run_folder import Events, RunDir
from pipelines.run_place import worked_on_here
from pipelines.tracking.store import check_registers
from pipelines.train_group import Group, fit
from pipelines.upload.background import Uploads, with_uploads
from pipelines.upload.claim import check_arrived
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.errors import DataError


def run(config: PretrainConfig) -> None:
    """Pre-train, or go on pre-training, or say that it is done.

    Raises:
        ConfigError: options contradict those the run was started with, or the workers do not fit.
        DataError: no blocks, or blocks without rows.
        CheckpointError: blocks of another tokenizer, or a checkpoint that could not be written.
        TrainingError: the loss is not finite, or training failed more often than max_failures.
    """
    from pipelines.pretrain.start import start_of

    check_registers(config.register_model, config.tracking_uri)
    config = worked_on_here(config)
    manifest = _blocks(config)
    start, data = start_of(config), identity(manifest)
    folder = make_folder(config, data, start)
    with locked(folder, "pmlm pretrain"):  # before the record: of two at once, one may make it
        run_dir, known = open_run(config, data, start)
        if not known and (others := started_alike(config, data, start)):
            warn(
                f"{' and '.join(others)} started from {config.init_checkpoint} with these options when it held other "
                "weights, or by an older pmlm that did not look. This is a new run; an old one goes on from its old "
                f"weights with --run_name {others[-1]}"
            )
        with _lease(config, run_dir):
            _run_alone(config, manifest, run_dir, start, known)


def _lease(config: PretrainConfig, run_dir: RunDir) -> AbstractContextManager[None]:
    if config.upload_dir is None:
        return nullcontext()
    from pipelines.pretrain.upload import COMMAND, home_of
    from pipelines.upload import lease

    return lease.kept(run_dir, home_of(run_dir, config.upload_dir), COMMAND)


def _run_alone(config: PretrainConfig, manifest: Manifest, run_dir: RunDir, start: Start | None, known: bool) -> None:
    from pmlm_core.training import checkpoint

    plan = plan_for(
        config,
        run_dir,
        manifest,
        attempt=uuid.uuid4().hex[:12],
        threads=cluster.threads_per_worker(config.cpus_per_worker, config.num_workers),
        start=start,
    )
    checkpoint.sweep(run_dir.checkpoints)
    newest = newest_checkpoint(plan)
    plan = as_before(plan)
    tell_start(plan, manifest, known)
    if newest is not None and checkpoint.read_manifest(newest)["step"] >= config.max_steps:
        say(f"run {run_dir.name} is finished: all {config.max_steps:,} steps were done before")
        if has_news(plan, newest):  # killed after its last checkpoint, or given another store or model name now
            open_sink(plan, manifest).finish("FINISHED")
            register_model(plan, newest)
            _upload_record(plan)
        check_arrived(config, _catch_up(plan))
        conclude(plan, newest)
        return
    sink, uploads = open_sink(plan, manifest), _uploads(plan)
    progress = Progress(run_dir, config.max_steps, with_uploads(sink.ship, uploads))
    progress.start()
    status, there = "FAILED", uploads is None
    try:
        _fit(plan)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with ExitStack() as ending:  # a signal ends the wait that it meets, and what comes after is done all the same
            ending.callback(sink.finish, status)
            ending.callback(shutil.rmtree, run_dir.path / "ray", ignore_errors=True)
            ending.callback(progress.stop)
            if uploads is not None and not in_a_hurry():
                there = uploads.close(leaving=status != "FINISHED")
    folder = checkpoint.folder_of(run_dir.checkpoints, config.max_steps)
    register_model(plan, folder)
    _upload_record(plan)
    check_arrived(config, there)
    conclude(plan, folder)


def newest_checkpoint(plan: WorkPlan) -> Path | None:
    """The newest good checkpoint of the run, here or fetched from upload_dir; None if it has none yet.

    Raises:
        ConfigError, CheckpointError: as `checkpoint.newest_valid` and `upload.fetch`.
    """
    from pmlm_core.training import checkpoint

    try:
        newest = checkpoint.newest_valid(plan.run.checkpoints, warn)
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
        lambda known: refuse_other_run(known["deciding"], known["data"], home, config, plan.data, plan.start),
        say,
    )


def _uploads(plan: WorkPlan) -> Uploads | None:
    """The copying of checkpoints, where it is asked for."""
    if plan.config.upload_dir is None:
        return None
    from pipelines.pretrain.upload import uploads_of

    return uploads_of(plan.run, plan.config.upload_dir, plan.config.keep_checkpoints, Events(plan.run))


def _upload_record(plan: WorkPlan) -> None:
    """Upload what MLflow knows by now; a run fetched from there must not be registered a second time."""
    if plan.config.upload_dir is not None:
        from pipelines.pretrain.upload import send_record

        send_record(plan.run, plan.config.upload_dir, warn)


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
    from pipelines.pretrain.start import start_of

    check_registers(config.register_model, config.tracking_uri)
    config = worked_on_here(config)
    blocks, start = costs.read_blocks(config.data_dir), start_of(config)
    if blocks is not None:
        _blocks(config)
        run_dir = RunDir(check_unless_new(config, identity(Manifest.load(config.data_dir)), start))
        if (step := _step_reached(run_dir)) >= config.max_steps:
            say(
                f"run {run_dir.name} is finished, by its newest checkpoint, unread: all {config.max_steps:,} steps "
                "were done before; nothing is to train"
            )
            return
        if step:
            say(
                f"run {run_dir.name} would go on from step {step:,}, by its newest checkpoint, unread; what follows is "
                f"of all {config.max_steps:,} steps"
            )
    if config.use_gpu:
        cluster.tell_missing_gpu()
    counted = blocks or costs.ASSUMED
    micro_batch = settled_micro_batch(config, counted.max_length, counted.most_slots)
    console().print(costs.describe(config, micro_batch, bf16=_bf16(config)), markup=False)


def _step_reached(run_dir: RunDir) -> int:
    """Of the newest checkpoint here, unread; 0 if there is none."""
    from pmlm_core.training import checkpoint

    return max((checkpoint.step_of(path.name) or 0 for path in checkpoint.all_steps(run_dir.checkpoints)), default=0)


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
    tokenizer_files(config.data_dir, manifest.tokenizer_fingerprint)
    return manifest
