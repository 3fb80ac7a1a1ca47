"""What a run says before it trains: subsets, bad rows, size."""

import shlex
from collections.abc import Mapping
from typing import Any

from pipelines.console import counted, say, warn
from pipelines.finetune.job import Job, Part
from pipelines.finetune.rundir import REJECTS
from pipelines.finetune.splits import Rejects, predictions_name
from pipelines.run_place import named


def tell_rows(job: Job, rejects: Rejects, *, written: bool) -> None:
    """Print what is taken of the data and what is not.

    Args:
        written: the bad rows will be found in the run's folder; otherwise the first of each split is shown.
    """
    if job.task.name == "classification":
        shown, more = ", ".join(job.task.labels[:20]), f", ... ({len(job.task.labels)})" * (len(job.task.labels) > 20)
        say(f"labels: {shown}{more} (--labels names those that count; rows with others are then left out)")
    parts: dict[str, Part] = {part.split.name: part for part in (*job.final, job.train)}
    for name, part in parts.items():
        split, left_out = part.split, rejects.of(name)
        if split.used < split.examples:
            limit = "max_train_rows" if part.training else "max_predict_rows"
            say(f"split '{name}': a subset of {split.used:,} of {split.examples:,} examples is used ({limit})")
        if left_out:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.most_common())
            where = f"see {job.run.path / REJECTS}" if written else f"the first: {rejects.first(name)}"
            warn(f"split '{name}': {left_out.total():,} bad rows are left out ({reasons}); {where}")
    for split in (part.split for part in job.final):
        if (name := predictions_name(job.task, split)) != split.name:
            lacking = counted(split.missing, "row")
            warn(f"split '{split.name}': predictions will lack {lacking}, so '{name}' is no submission")
    if job.choose is None:
        warn("there is no labelled development split to choose epochs by: the last one is taken")
    elif job.choose.split.used < job.choose.split.examples:
        chosen = job.choose.split
        say(
            f"epochs are chosen by a subset of {chosen.used:,} of {chosen.examples:,} examples of '{chosen.name}' "
            "(max_eval_rows)"
        )


def warn_of_others(job: Job, result: Mapping[str, Any], whose: str, model: str) -> None:
    """Say of what is finished that a split's files are others by now, or new: only what is trained on, and what chooses
    epochs, names a run. Results of earlier versions do not say which examples they predicted.

    Args:
        result: scores of a finished seed or trial.
        whose: of what they are.
        model: what predicted, by the name that the user knows.
    """
    was = result.get("examples", {})
    for part in job.final:
        name, now = part.split.name, part.split.identity()
        wrong = "are others than it predicted" if was.get(name, now) != now else ""
        if name not in result["scores"]:
            wrong = "were not there when it was made"
        if wrong:
            warn(
                f"{whose} is kept as it is, and the examples of split '{name}' {wrong}: `pmlm "
                f"predict --model {shlex.quote(model)} --inputs FILE --output_dir NEW` predicts them, another "
                "--run_name does all anew"
            )


def tell_training(job: Job, max_steps: int, known: bool) -> None:
    """Print what is about to be trained."""
    recipe, split = job.recipe, job.train.split
    say(
        f"{'run' if known else 'new run'} {job.run.name}: {counted(split.used, 'example')}, "
        f"{counted(recipe.num_train_epochs, 'epoch')} of batches of {recipe.batch_size}, "
        f"{counted(max_steps, 'update')}, learning rate {recipe.learning_rate:g}, "
        f"{'fresh weights' if job.config.from_scratch else 'weights'} of {job.source.path}"
    )
    workers = job.config.num_workers
    say(
        f"{workers} worker{'s' * (workers != 1)} of {job.threads} thread{'s' * (job.threads != 1)}"
        f"{' and a GPU' * job.config.use_gpu}, micro-batches of {job.micro_batch_size} rows; "
        f"everything in {named(job.config, job.run.path)}"
    )
