"""`pmlm predict`: plan the pieces, do those that are missing, join them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines import cluster
from pipelines.console import counted, say, warn
from pipelines.finetune.source import TASK_FILE
from pipelines.left_out import told_left_out
from pipelines.lock import locked
from pipelines.output_folder import check_output_dir
from pipelines.piece_progress import PieceProgress
from pipelines.predict.config import PredictConfig
from pipelines.predict.estimate import Cost, cost_of
from pipelines.predict.fields import QUESTION_GENERATION
from pipelines.predict.finetuned import Finetuned, open_finetuned
from pipelines.predict.finish import finish, known, refuse_known_rejects
from pipelines.predict.inputs import Input, list_inputs
from pipelines.predict.piece import Done
from pipelines.predict.plan import Plan, check_same, identity_of, load_plan, make_plan
from pipelines.predict.work import in_this_process, over_workers
from pipelines.quantities import count_text, duration, size_text
from pmlm_core import storage
from pmlm_core.errors import ConfigError

_EXPANSION = 3
"""Packed text is about so many times as long."""
_WORTH_RAY = 60.0
"""Seconds of one core from which starting Ray costs less than it saves."""


def run(config: PredictConfig) -> None:
    """Predict what `config` asks for; what an earlier run finished is kept.

    Raises:
        ConfigError, DataError, CheckpointError: what is wrong, where, and the way out; what was finished is kept.
    """
    output_dir = _output_dir(config)
    finetuned = open_finetuned(config)
    inputs = _inputs(config, finetuned, output_dir)
    with _locked(output_dir):
        plan = load_plan(output_dir)
        if plan is None:
            plan = make_plan(config, finetuned, inputs)
            plan.save(output_dir)
        else:
            check_same(output_dir, plan.identity, identity_of(config, finetuned, inputs))
        done = known(plan, output_dir)
        _announce(plan, finetuned, done)
        if config.strict:
            refuse_known_rejects(plan, output_dir, done)
        missing = [piece for piece in plan.pieces if piece.number not in done]
        if missing:
            _do(config, finetuned, plan, output_dir, done)
        finish(plan, config, finetuned, output_dir, done)


def dry_run(config: PredictConfig) -> None:
    """Say what would run and what it would take; writes nothing and loads no model.

    Raises:
        ConfigError, DataError: as `run`.
    """
    output_dir = _output_dir(config)
    finetuned = open_finetuned(config)
    inputs = _inputs(config, finetuned, output_dir)
    plan = load_plan(output_dir)
    if plan is None:
        plan = make_plan(config, finetuned, inputs)
    else:
        check_same(output_dir, plan.identity, identity_of(config, finetuned, inputs))
    done = known(plan, output_dir)
    _announce(plan, finetuned, done)
    if config.strict:
        refuse_known_rejects(plan, output_dir, done)
    if len(done) == len(plan.pieces):
        say(f"every piece in {output_dir} is finished: nothing is left to predict")
        return
    takes = _cost(config, finetuned, plan, done)
    where = _where(config, takes, len(plan.pieces) - len(done))
    say(f"model        {count_text(takes.parameters)} parameters, of {finetuned.source.path}")
    say(f"memory       about {size_text(takes.memory)} a worker, libraries included")
    say(f"work         about {count_text(takes.tokens)} tokens, {duration(takes.seconds)} of one CPU core")
    say(f"where        {where}; everything in {output_dir}")


def _output_dir(config: PredictConfig) -> str:
    check_output_dir(config.output_dir)
    return storage.normalise(config.output_dir)


def _inputs(config: PredictConfig, finetuned: Finetuned, output_dir: str) -> list[Input]:
    task = finetuned.task
    squad = task.kind == "question_answering" or task.name in QUESTION_GENERATION
    inputs, left_out = list_inputs(config.inputs, squad)
    inside = next((each.uri for each in inputs if each.uri.startswith(output_dir + "/")), None)
    if inside:
        raise ConfigError(f"the input {inside} lies inside output_dir {output_dir}; keep input and output apart")
    if left_out:
        warn(told_left_out(left_out))
    return inputs


@contextlib.contextmanager
def _locked(output_dir: str) -> Iterator[None]:
    if storage.is_remote(output_dir):  # which has no locks; two runs would write the same bytes
        yield
        return
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    with locked(output_dir, "pmlm predict", "output_dir"):
        yield


def _announce(plan: Plan, finetuned: Finetuned, done: dict[int, Done]) -> None:
    if finetuned.inferred:
        say(f"task         as config.json tells it, for there is no {TASK_FILE}: {finetuned.task.name}")
    size = sum(each.size for each in plan.inputs)
    say(
        f"{finetuned.task.kind.replace('_', ' ')} ('{finetuned.task.name}'): {counted(plan.rows, 'row')} in "
        f"{counted(len(plan.inputs), 'file')}, {size_text(size)} as stored, in {counted(len(plan.pieces), 'piece')}"
        + (f"; finished already: {len(done):,}" if done else "")
    )
    for entry in plan.broken:
        warn(entry["detail"])


def _cost(config: PredictConfig, finetuned: Finetuned, plan: Plan, done: dict[int, Done]) -> Cost:
    """Of what is missing."""
    nbytes = sum(each.size * (_EXPANSION if each.compression else 1) for each in plan.inputs)
    rows = sum(piece.rows for piece in plan.pieces if piece.number not in done)
    return cost_of(config, finetuned, rows, nbytes * rows / max(1, plan.rows))


def _where(config: PredictConfig, takes: Cost, pieces: int) -> str:
    if _alone(config, takes, pieces):
        return "in this process"
    count = config.num_workers or cluster.available_cpus() // config.cpus_per_worker
    return (
        f"over Ray, {counted(max(1, min(count, pieces)), 'worker')}"
        if not cluster.is_remote()
        else "over the Ray cluster"
    )


def _alone(config: PredictConfig, takes: Cost, pieces: int) -> bool:
    """Whether to do without Ray."""
    if cluster.is_remote():
        return False
    if config.num_workers is not None:
        return config.num_workers == 1
    if config.use_gpu:
        import torch

        return pieces <= 1 or torch.cuda.device_count() <= 1
    return pieces <= 1 or takes.seconds < _WORTH_RAY


def _do(config: PredictConfig, finetuned: Finetuned, plan: Plan, output_dir: str, done: dict[int, Done]) -> None:
    missing = [piece for piece in plan.pieces if piece.number not in done]
    takes = _cost(config, finetuned, plan, done)
    work = in_this_process if _alone(config, takes, len(missing)) else over_workers
    started = time.monotonic()
    rows_of = {piece.number: piece.rows for piece in missing}
    with PieceProgress("predicting", sum(rows_of.values()), len(missing)) as progress:
        for each in work(missing, plan.inputs, config, finetuned, output_dir):
            done[each.number] = each
            progress.done(rows_of[each.number], sum(each.rejects.values()))
    seconds = time.monotonic() - started
    say(f"{sum(rows_of.values()):,} rows in {duration(seconds)} ({sum(rows_of.values()) / seconds:,.0f} rows a second)")
