"""The pre-training loop of one worker: steps, figures, checkpoints; of Ray it knows only a function to report to."""

import time
from pathlib import Path
from typing import Any

from pipelines.handover.serving import KEEPER
from pipelines.leaving import Left, Notices
from pipelines.pretrain.meter import Meter
from pipelines.pretrain.plan import WorkPlan, plan_at
from pipelines.pretrain.setup import (
    HeldOut,
    Trainee,
    distribute,
    trainee,
    training_loader,
)
from pipelines.pretrain.tokenizer_beside import tokenizer_files
from pipelines.run_folder import Events
from pipelines.team import Team, finite
from pipelines.tracking.journal import Journal
from pipelines.train_worker import work_in
from pipelines.upload.of_workers import hand_over, starting
from pmlm_core.model.objectives import Objective
from pmlm_core.training import checkpoint, hardware
from pmlm_core.training.kernels_in_use import kernels_in_use
from pmlm_core.training.optimizer import optimizer_tensors, set_learning_rate
from pmlm_core.training.pretraining import evaluate, pretraining_task
from pmlm_core.training.resuming import COMPUTED_BY, computed_otherwise
from pmlm_core.training.schedule import learning_rate
from pmlm_core.training.snapshot import CheckpointWriter
from pmlm_core.training.step import Precision, train_step
from pmlm_core.training.together import settle_buckets

_EVAL_ROWS = "eval_rows"


def ray_worker(told: dict[str, Any]) -> None:
    """What Ray Train starts in every worker process."""
    plan = told["plan"]
    work_in(
        plan.run,
        plan.attempt,
        lambda run, team: train(plan_at(plan, run), team),
        told[KEEPER],
    )


def train(plan: WorkPlan, team: Team) -> None:
    """Train from the newest good checkpoint to the last step.

    Raises:
        TrainingError: loss or gradient is not finite, or a GPU's memory is full.
        CheckpointError: no checkpoint fits these blocks, or the last one could not be written.
        DataError: a shard cannot be read.
        Left: the workers were told to leave, and have after a checkpoint.
    """
    with hardware.full_memory_told(
        f"give a smaller micro_batch_size than {plan.micro_batch_size}, or gradient_checkpointing: true, and the same "
        "command goes on, with the same rows and other dropout"
    ):
        _train(plan, team)


def _train(plan: WorkPlan, team: Team) -> None:
    config, events = plan.config, Events(plan.run)
    precision = hardware.set_up(use_gpu=config.use_gpu, threads=plan.threads, precision=config.precision)
    start = starting(plan.run, team, lambda text: events.add("warning", text))
    trained = trainee(plan, precision, start, team.world)
    journal = Journal(plan.run.path, say=lambda text: events.add("warning", text))
    if team.leads:
        dropped = journal.truncate_after(trained.step)
        _tell_start(plan, team, trained, precision, dropped, events)
    task = pretraining_task(Objective(config.objective))
    loader = training_loader(plan, precision, team.rank, team.world, trained.step)
    samples = [batch for _, batch in loader.prepare(trained.step)] if trained.step < config.max_steps else []
    model = distribute(trained.model, plan, precision, team.world, samples)
    held_out = HeldOut(plan, precision, team.rank, team.world) if config.eval_rows else None
    rows = held_out.rows if held_out is not None else 0
    if team.leads and (was := trained.state.get(_EVAL_ROWS, rows)) != rows and was and rows:
        events.add(
            "warning",
            f"held-out losses are of {rows} rows from here on, and of {was} before: they do not compare, and the best "
            f"checkpoint is chosen among both. Give eval_rows {was} again for one measure throughout",
        )

    def published(step: int, folder: Path) -> None:
        hand_over(plan.run, team, config.keep_checkpoints, lambda text: events.add("warning", text))
        events.add("checkpoint", plan.run.named(folder), step=step)

    writer = CheckpointWriter(
        plan.run.checkpoints,
        tokenizer_files(config.data_dir, plan.data.tokenizer_fingerprint) if team.leads else {},
        keep=config.keep_checkpoints,
        say=lambda text: events.add("warning", text),
        published=published,
        writes=team.leads,
    )
    meter = Meter(plan, precision, trained.model.config, team.world)
    if samples:
        settle_buckets(model, samples[0], task, precision)
    saved_at, notices, leave = time.monotonic(), Notices(team), False
    try:
        for step, micro_batches in loader:
            begun = time.perf_counter()
            rate = learning_rate(
                step,
                peak=config.learning_rate,
                kind=config.lr_scheduler_type,
                warmup_steps=config.warmup(),
                max_steps=config.max_steps,
            )
            set_learning_rate(trained.optimizer, rate)
            overdue = config.save_minutes is not None and time.monotonic() - saved_at > 60 * config.save_minutes
            predictions, tokens = loader.measured
            result = train_step(
                model,
                trained.optimizer,
                micro_batches,
                task,
                step=step,
                seed=config.seed,
                precision=precision,
                max_grad_norm=config.max_grad_norm,
                share=[tokens, float(team.leads and overdue), *notices.share()],
                counted=predictions,
                keep_gradients=config.records(),
            )
            trained.step = done = step + 1
            trained.window.add(result.figures, result.count)
            meter.add(time.perf_counter() - begun, loader.waited, result.shared[0], result.count)
            last = done == config.max_steps
            if done % config.logging_steps == 0 or last:
                if team.leads:
                    figures = {f"train/{name}": value for name, value in trained.window.means().items()}
                    figures |= {"learning_rate": rate, "grad_norm": result.gradient_norm, **meter.figures()}
                    journal.append(done, figures)
                trained.window.clear()
                meter.clear()
            scores = None
            if held_out is not None and (done % config.eval_steps == 0 or last):
                scores = evaluate(trained.model, held_out, task, precision)
                if team.leads and scores:
                    journal.append(done, {f"eval/{name}": value for name, value in scores.items()})
            leave = notices.agreed(result.shared[2:]) and not last
            save = done % config.save_steps == 0 or last or result.shared[1] > 0 or leave
            if save:
                journal.sync()
                writer.save(trained.model, _contents(plan, team, trained, scores, precision, rows))
                saved_at = time.monotonic()
            if save or scores:
                team.report(finite({"step": done, **(scores or {})}))
            if leave:
                if team.leads:
                    events.add("leaving", f"told to leave: the workers end after the checkpoint of step {done}")
                break
    finally:
        writer.wait()
        journal.close()
    writer.close()
    if leave:
        raise Left


def _contents(
    plan: WorkPlan, team: Team, trained: Trainee, scores: dict[str, float] | None, precision: Precision, rows: int
) -> checkpoint.Contents:
    """What goes into a checkpoint; `rows`: held-out ones that losses are measured on."""
    state: dict[str, Any] = {
        "data": plan.data.__dict__,
        "deciding": plan.config.deciding(None if plan.start is None else plan.start.sha256),
        "window": trained.window.to_json(),
        "held_out": scores and finite(scores),
        _EVAL_ROWS: rows or trained.state.get(_EVAL_ROWS, 0),
        COMPUTED_BY: _computed_by(plan, team, trained, precision),
    }
    return checkpoint.Contents(
        step=trained.step,
        state=state,
        optimizer=optimizer_tensors(trained.optimizer, trained.model, wanted=team.leads),
        score=finite(scores).get("loss") if scores else None,
    )


def _computed_by(plan: WorkPlan, team: Team, trained: Trainee, precision: Precision) -> dict[str, Any]:
    """What the last bits of the figures depend on besides configuration and blocks."""
    return {
        "num_workers": team.world,
        "threads_per_worker": plan.threads,
        "micro_batch_size": plan.micro_batch_size,
        "precision": precision.name,
        "use_gpu": plan.config.use_gpu,
        "torch_compile": plan.config.compiles(),
        "cuda_graphs": plan.config.records(),
        "parallel": plan.config.parallel,
        **kernels_in_use(trained.model, precision),
        **hardware.versions(),
    }


def _tell_start(
    plan: WorkPlan, team: Team, trained: Trainee, precision: Precision, dropped: int, events: Events
) -> None:
    if not trained.step:
        events.add("resumed", f"training from step 0 in {precision.name}", step=0)
        return
    again = f"; {dropped} lines of the journal after it are done again" if dropped else ""
    events.add(
        "resumed", f"resumed from the checkpoint of step {trained.step} in {precision.name}{again}", step=trained.step
    )
    now = _computed_by(plan, team, trained, precision)
    if warning := computed_otherwise(trained.state.get(COMPUTED_BY, {}), now):
        events.add("warning", warning)
