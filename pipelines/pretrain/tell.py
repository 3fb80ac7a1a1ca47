"""What `pmlm pretrain` says before and after: what it is about to train, and where the result is."""

import shlex
import uuid
from pathlib import Path
from types import SimpleNamespace

from pipelines.console import made, next_command, say, warn
from pipelines.pretrain.config import FINAL, PretrainConfig
from pipelines.pretrain.plan import WorkPlan
from pipelines.quantities import count_text
from pipelines.run_place import lies_in_store, named
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.model.cost import parameters
from pmlm_core.training.batching import micro_batch_size


def tell_start(plan: WorkPlan, manifest: Manifest, known: bool) -> None:
    """Say what is about to be trained, by what, and where it will lie."""
    config, rows = plan.config, manifest.rows("train")
    tokens = config.max_steps * config.batch_size * manifest.tokens("train") / rows
    count = ""
    if config.init_checkpoint is None:
        size = SimpleNamespace(**config.size())
        positions = max(512, manifest.max_length)
        found = parameters(
            size, manifest.vocab_size, max_position_embeddings=positions, rel_pos_bins=config.rel_pos_bins
        )
        count = f", {count_text(found)} parameters"
    else:
        count = f", from the weights of {config.init_checkpoint}"
    say(
        f"{'run' if known else 'new run'} {plan.run.name}: {config.objective}{count}, {config.max_steps:,} steps of "
        f"{config.batch_size} rows, {count_text(tokens)} tokens, "
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
    for warning in (never_together(config), idle_workers(plan)):
        if warning:
            warn(warning)


def never_together(config: PretrainConfig) -> str | None:
    """A warning if checkpoints and held-out losses fall on different steps, or None."""
    one, other = sorted((config.eval_steps, config.save_steps))
    if not config.eval_rows or other % one == 0 or one >= config.max_steps:
        return None
    return (
        f"eval_steps {config.eval_steps} and save_steps {config.save_steps}: most checkpoints are written at steps "
        "without held-out losses, so the best is chosen among few; let one divide the other"
    )


def idle_workers(plan: WorkPlan) -> str | None:
    """A warning if the micro-batches that a run keeps leave workers without one, or None."""
    config, size = plan.config, plan.micro_batch_size
    count = config.batch_size // size
    places = -(-count // config.num_workers) * config.num_workers
    if count == places:
        return None
    even = micro_batch_size(config.batch_size, config.num_workers, None, limit=size)
    return (
        f"a batch is {count} micro-batch{'es' * (count != 1)} of {size} rows, as before, for dropout goes by them; "
        f"{config.num_workers} workers could take {places} in the same time. micro_batch_size {even} keeps all busy, "
        "with other dropout"
    )


def conclude(plan: WorkPlan, folder: Path) -> None:
    """Say what there is now, and what to do with it."""
    from pmlm_core.training import checkpoint

    if not lies_in_store(plan.config):
        _lead_to(folder, Path(plan.config.output_dir).absolute() / FINAL)
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
    next_command(f'pmlm fill --model {shlex.quote(where)} "The old [MASK] went into the house."')


def _lead_to(folder: Path, link: Path) -> None:
    """Let the link name this checkpoint, and say so where it named another run's."""
    was = link.resolve() if link.exists() else None
    new = was != folder.resolve() and _point(link, folder)
    if new and was is not None and was.parent != folder.resolve().parent:
        say(f"{link} leads to this run now; it led to {was}")


def _point(link: Path, folder: Path) -> bool:
    """Let OUTPUT_DIR/final be this checkpoint: that of the command given last; whether it is now."""
    temporary = link.with_name(f".final-{uuid.uuid4().hex[:8]}")
    try:
        temporary.symlink_to(folder.relative_to(link.parent))
        temporary.rename(link)
    except OSError:
        temporary.unlink(missing_ok=True)  # a file system without links: the folder's own name is said anyway
        return False
    return True
