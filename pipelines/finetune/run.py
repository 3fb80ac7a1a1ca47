"""`pmlm finetune`: settle what is to run, refuse what cannot, train every seed, say what came."""

import shutil
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from pipelines import cluster
from pipelines.console import made, next_predict, say
from pipelines.finetune import upload
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.elsewhere import read_by
from pipelines.finetune.encode import encode_all
from pipelines.finetune.job import Job, as_before, settle, settled_micro_batch
from pipelines.finetune.progress import Progress
from pipelines.finetune.record import catch_up, open_sink, send_files
from pipelines.finetune.results import show, write_summary
from pipelines.finetune.rundir import (
    MODEL,
    PREDICTIONS,
    REJECTS,
    SCORES,
    check_same,
    check_scorers,
    make_folder,
    open_run,
    read_scores,
    seed_folder,
)
from pipelines.finetune.splits import Rejects
from pipelines.finetune.tell import tell_rows, tell_training, warn_of_others
from pipelines.leaving import in_a_hurry
from pipelines.lock import locked
from pipelines.output_folder import check_output_dir
from pipelines.run_folder import write_record
from pipelines.run_place import named, worked_on_here
from pipelines.train_group import Group, fit
from pipelines.upload.background import with_uploads
from pipelines.upload.claim import check_arrived
from pmlm_core import storage


def run(config: FinetuneConfig) -> None:
    """Fine-tune, or go on, or say that it is done.

    Raises:
        ConfigError: options contradict each other, the checkpoint, or the run in that folder.
        DataError: the task's files are missing or unusable.
        CheckpointError: a checkpoint is damaged or cannot be written.
        TrainingError: the loss is not finite, or training failed more often than max_failures.
    """
    config = worked_on_here(config)
    check_output_dir(config.output_dir)
    job, rejects = settle(config)
    make_folder(job.run, job.identity())
    with locked(job.run.path, "pmlm finetune"):  # before the record: of two at once, one may make it
        known = open_run(job)
        with upload.lease_of(job):
            _run_alone(job, rejects, known)


def _run_alone(job: Job, rejects: Rejects, known: bool) -> None:
    config = job.config
    upload.fetch(job)
    tell_rows(job, rejects, written=True)
    storage.write_lines(str(job.run.path / REJECTS), rejects.lines())
    seeds = config.all_seeds()
    for seed in seeds:
        check_same(seed_folder(job.run, seed), job.identity())
    finished = {seed: read_scores(seed_folder(job.run, seed)) for seed in seeds}
    check_scorers(job, finished)
    uploads, ended, there = upload.finished_uploads(job), False, True
    try:
        if not all(finished.values()):
            job = _encoded(job, known)
        for seed in seeds:
            if (scores := finished[seed]) is None:
                finished[seed] = _train_seed(job, seed)
                if uploads is not None:
                    uploads.wake()
            else:
                _tell_finished(job, seed, scores)
                catch_up(replace(job, run=seed_folder(job.run, seed), seed=seed))
        results = [result for result in finished.values() if result is not None]
        write_summary(job, results)
        show(results)
        ended = True
    finally:
        if uploads is not None and not in_a_hurry():
            there = uploads.close(leaving=not ended)
    check_arrived(config, there)
    _conclude(job, results)


def dry_run(config: FinetuneConfig) -> None:
    """Say what `run` would do and what it would take; nothing is written.

    Raises:
        ConfigError, DataError: as `run`.
    """
    from pipelines.finetune.plan import describe

    config = worked_on_here(config)
    check_output_dir(config.output_dir)
    job, rejects = settle(config)
    check_same(job.run, job.identity())
    tell_rows(job, rejects, written=False)
    left = []
    for seed in config.all_seeds():
        if (scores := read_scores(seed_folder(job.run, seed))) is None:
            left.append(seed)
        else:
            _tell_finished(job, seed, scores)
    if not left:
        say(f"every seed in {named(config, job.run.path)} is finished: nothing is left to train")
        return
    job = replace(job, config=replace(job.config, seeds=",".join(map(str, left))))
    if config.use_gpu:
        cluster.tell_missing_gpu()
    for line in describe(job):
        say(line)


def _tell_finished(job: Job, seed: int, scores: Mapping[str, Any]) -> None:
    say(f"seed {seed} is finished: it was trained and scored before")
    warn_of_others(job, scores, f"seed {seed}", named(job.config, seed_folder(job.run, seed).path / MODEL))


def _encoded(job: Job, known: bool) -> Job:
    """The job with all features made, and what hangs on them settled and told."""
    from pipelines.finetune.trainee import TrainingBatches, job_family

    job = replace(
        encode_all(job),
        threads=cluster.threads_per_worker(job.config.cpus_per_worker, job.config.num_workers),
    )
    batches = TrainingBatches(job, job_family(job))
    job = replace(job, micro_batch_size=settled_micro_batch(job.config, job.recipe, batches.longest))
    tell_training(job, batches.max_steps, known)
    return job


def _train_seed(job: Job, seed: int) -> dict[str, Any]:
    """Train one seed, over Ray if there are several workers, and send what came of it to MLflow."""
    from pipelines.finetune.trainee import TrainingBatches, job_family

    job = as_before(replace(job, run=seed_folder(job.run, seed), seed=seed, attempt=uuid.uuid4().hex[:12]))
    write_record(job.run, {"identity": job.identity(), "seed": seed})
    batches = TrainingBatches(job, job_family(job))
    sink = open_sink(job)
    uploads = upload.checkpoint_uploads(job)
    news = with_uploads(sink.ship, uploads)
    progress = Progress(job.run, seed, job.task.metric, batches.max_steps, batches.steps_per_epoch, news)
    progress.start()
    status = "FAILED"
    try:
        _fit(job)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        sink.tag("failure", " ".join(str(error).split())[:1000])
        raise
    finally:
        with ExitStack() as ending:  # a signal ends the wait that it meets, and what comes after is done all the same
            if status == "FINISHED":
                ending.callback(send_files, job)
            ending.callback(sink.finish, status)
            ending.callback(shutil.rmtree, job.run.path / "ray", ignore_errors=True)
            ending.callback(progress.stop)
            if uploads is not None and not in_a_hurry():
                uploads.close(leaving=status != "FINISHED")
    result = read_scores(job.run)
    assert result is not None, "a seed that ends without an error has written its scores"
    return result


def _fit(job: Job) -> None:
    from transformers.utils.logging import disable_progress_bar

    from pipelines.finetune.loop import finetune, ray_worker
    from pipelines.team import Team

    config = job.config
    if config.num_workers == 1 and not cluster.is_remote():
        disable_progress_bar()  # of writing checkpoints
        finetune(job, Team())
        return
    group = Group(
        job.run, job.attempt, config.num_workers, job.threads, config.use_gpu, config.max_failures, reads=read_by(job)
    )
    fit(group, ray_worker, {"job": job})


def _conclude(job: Job, results: list[dict[str, Any]]) -> None:
    metric = results[0]["metric"]

    def of_dev(result: dict[str, Any]) -> float:
        return next((scores[metric] for scores in result["scores"].values() if metric in scores), 0.0)

    best = max(results, key=of_dev)
    folder = seed_folder(job.run, best["seed"]).path
    model = named(job.config, folder / MODEL)
    made("scores", named(job.config, job.run.path / SCORES))
    made("predictions", named(job.config, folder / PREDICTIONS))
    made("model" if len(results) == 1 else f"model of the best seed, {best['seed']}", model)
    next_predict(model)
