"""The fine-tuning loop of one worker for one seed: steps, an evaluation every epoch, checkpoints, the conclusion."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.finetune.conclude import conclude
from pipelines.finetune.elsewhere import job_here
from pipelines.finetune.epochs import Chooser, stands_still, worth
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import SCORES
from pipelines.finetune.source import keeps_head
from pipelines.finetune.trainee import Trainee, TrainingBatches, job_family, trainee
from pipelines.finetune.upload import best_in
from pipelines.handover.serving import KEEPER
from pipelines.leaving import Left, Notices
from pipelines.run_folder import Events
from pipelines.team import Team, finite
from pipelines.tracking.journal import Journal
from pipelines.train_worker import work_in
from pipelines.upload.of_workers import hand_over, starting
from pmlm_core.training import checkpoint, hardware
from pmlm_core.training.finetuning import finetuning_task
from pmlm_core.training.kernels_in_use import kernels_in_use
from pmlm_core.training.optimizer import optimizer_tensors, set_learning_rate
from pmlm_core.training.resuming import COMPUTED_BY, computed_otherwise
from pmlm_core.training.schedule import learning_rate
from pmlm_core.training.snapshot import CheckpointWriter
from pmlm_core.training.step import Precision, train_step
from pmlm_core.training.together import settle_buckets, together


def ray_worker(told: dict[str, Any]) -> None:
    """What Ray Train starts in every worker process."""
    keeper = told[KEEPER]
    job = job_here(told["job"], keeper)
    work_in(
        job.run,
        job.attempt,
        lambda run, team: finetune(replace(job, run=run), team),
        keeper,
        ending=(SCORES,),
    )


def finetune(job: Job, team: Team) -> None:
    """Train one seed from its newest good checkpoint to the end, then score and save its best epoch.

    Raises:
        TrainingError: loss or gradient is not finite, or a GPU's memory is full.
        CheckpointError: a checkpoint does not fit, or the last one could not be written.
        DataError: files were changed meanwhile.
        Left: the workers were told to leave, and have after a checkpoint.
    """
    with hardware.full_memory_told(
        f"give a smaller micro_batch_size than {job.micro_batch_size}, and the same command goes on, with the same "
        "rows and other dropout"
    ):
        _finetune(job, team)


def _finetune(job: Job, team: Team) -> None:
    config, events = job.config, Events(job.run)
    precision = hardware.set_up(use_gpu=config.use_gpu, threads=job.threads, precision=config.precision)
    start = starting(job.run, team, lambda text: events.add("warning", text), partial(best_in, metric=job.task.metric))
    trained = trainee(job, precision, start)
    journal = Journal(job.run.path, say=lambda text: events.add("warning", text))
    if team.leads:
        journal.truncate_after(trained.step)
        _tell_start(job, team, trained, precision, events)
    try:
        if not trained.state.get("finished"):
            _train(job, team, trained, precision, journal, events)
        conclude(job, team, precision, journal, events)
    finally:
        journal.close()


def _train(
    job: Job,
    team: Team,
    trained: Trainee,
    precision: Precision,
    journal: Journal,
    events: Events,
) -> None:
    config, recipe, task = job.config, job.recipe, job.task
    family = job_family(job)
    batches = TrainingBatches(job, family)
    per_epoch, max_steps = batches.steps_per_epoch, batches.max_steps
    work = finetuning_task(task.kind, recipe.label_smoothing)
    loader = batches.loader(precision, team.rank, team.world, trained.step, work.count)
    chooser = None if job.choose is None else Chooser(job, family, team, precision)

    def published(step: int, folder: Path) -> None:
        hand_over(job.run, team, 1, lambda text: events.add("warning", text), best_first=True)
        events.add("checkpoint", step=step)

    writer = CheckpointWriter(
        job.run.checkpoints,
        tokenizer_files(job) if team.leads else {},
        keep=1,
        say=lambda text: events.add("warning", text),
        published=published,
    )
    model = together(trained.model, precision, team.world)
    first = {name: tensor.to(precision.device) for name, tensor in loader.prepare(trained.step)[0][1].items()}
    settle_buckets(model, first, work, precision)
    notices, leave = Notices(team), False
    try:
        for step, micro_batches in loader:
            rate = learning_rate(
                step,
                peak=recipe.learning_rate,
                kind="linear",
                warmup_steps=round(recipe.warmup_ratio * max_steps),
                max_steps=max_steps,
            )
            set_learning_rate(trained.optimizer, rate)
            result = train_step(
                model,
                trained.optimizer,
                micro_batches,
                work,
                step=step,
                seed=job.seed,
                precision=precision,
                max_grad_norm=config.max_grad_norm,
                share=notices.share(),
                counted=loader.measured[0],
            )
            trained.step = done = step + 1
            trained.window.add(result.figures, result.count)
            ends_epoch = done % per_epoch == 0
            if done % config.logging_steps == 0 or done == max_steps:
                if team.leads:
                    figures = {f"train/{name}": value for name, value in trained.window.means().items()}
                    figures |= {"learning_rate": rate, "grad_norm": result.gradient_norm, "epoch": done / per_epoch}
                    journal.append(done, figures)
                trained.window.clear()
            finished, metric, value = done == max_steps, None, None
            if ends_epoch:
                scores = chooser.scores(trained.model) if chooser else {}
                metric, value = scores.get(task.metric), worth(scores, task.metric)
                trained.history.append({"epoch": done // per_epoch, "step": done, "scores": scores})
                if team.leads and scores:
                    journal.append(done, {f"eval/{name}": value for name, value in scores.items()})
                finished = finished or stands_still(trained.history, task.metric, config.early_stopping_patience)
            leave = notices.agreed(result.shared) and not finished
            if ends_epoch or (config.save_steps and done % config.save_steps == 0) or leave:
                if team.leads:
                    journal.sync()
                    writer.save(trained.model, _contents(job, team, trained, value, finished, precision))
                figures = {"step": done, "epoch": done / per_epoch}
                team.report(finite({**figures, **({} if metric is None else {task.metric: metric})}))
            if finished:
                if done < max_steps and team.leads:
                    events.add("told", f"stopped early: no better epoch in {config.early_stopping_patience}", step=done)
                break
            if leave:
                if team.leads:
                    events.add("leaving", f"told to leave: the workers end after the checkpoint of step {done}")
                break
    finally:
        writer.wait()
    writer.close()
    if leave:
        raise Left


def tokenizer_files(job: Job) -> dict[str, bytes]:
    """The tokenizer of the checkpoint that is fine-tuned, file by file, set to truncate as the recipe does."""
    from pmlm_core.corpus.tokenizer import TextTokenizer

    return TextTokenizer.load(job.source.path).files_at(job.source.path, model_max_length=job.recipe.max_length)


def _contents(
    job: Job, team: Team, trained: Trainee, value: float | None, finished: bool, precision: Precision
) -> checkpoint.Contents:
    """The checkpoint's state; its score is what `checkpoint.best` wants least of: `worth` with its sign changed."""
    state: dict[str, Any] = {
        "window": trained.window.to_json(),
        "history": trained.history,
        "finished": finished,
        COMPUTED_BY: _computed_by(job, team, trained, precision),
    }
    tensors = optimizer_tensors(trained.optimizer, trained.model)
    return checkpoint.Contents(trained.step, state, tensors, None if value is None else -value)


def _computed_by(job: Job, team: Team, trained: Trainee, precision: Precision) -> dict[str, Any]:
    """What the last bits of the figures depend on besides options and data."""
    return {
        "num_workers": team.world,
        "threads_per_worker": job.threads,
        "micro_batch_size": job.micro_batch_size,
        "precision": precision.name,
        "use_gpu": job.config.use_gpu,
        **kernels_in_use(trained.model, precision),
        **hardware.versions(),
    }


def _tell_start(job: Job, team: Team, trained: Trainee, precision: Precision, events: Events) -> None:
    if not trained.step:
        kept = keeps_head(job.source, job.task, from_scratch=job.config.from_scratch)
        head = ", with the head of the checkpoint, which fits this task" * kept
        events.add("resumed", f"seed {job.seed}: training from step 0 in {precision.name}{head}", step=0)
        return
    text = f"seed {job.seed}: resumed from the checkpoint of step {trained.step} in {precision.name}"
    events.add("resumed", text, step=trained.step)
    if warning := computed_otherwise(trained.state.get(COMPUTED_BY, {}), _computed_by(job, team, trained, precision)):
        events.add("warning", warning)
