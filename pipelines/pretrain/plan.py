"""Everything a worker must be told, settled by the driver before Ray starts."""

from dataclasses import dataclass, replace
from typing import Any

from pipelines.handover.files import address_like
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.rundir import DataIdentity, Start
from pipelines.run_folder import RunDir
from pmlm_core import storage
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.errors import PmlmError
from pmlm_core.model.cost import max_predictions
from pmlm_core.training.batching import fitting_rows, micro_batch_size


@dataclass(frozen=True)
class WorkPlan:
    """Sent to every worker."""

    config: PretrainConfig
    run: RunDir
    data: DataIdentity
    attempt: str
    """Names this start of the command; a worker group that Ray restarts is still the same attempt."""
    micro_batch_size: int
    threads: int
    slots: int
    """K, predicted slots of a row."""
    start: Start | None = None
    """What a run begins with that does not draw its weights."""


def plan_for(
    config: PretrainConfig, run: RunDir, manifest: Any, *, attempt: str, threads: int, start: Start | None = None
) -> WorkPlan:
    """Settle what the configuration leaves open.

    Raises:
        ConfigError: the global batch cannot be shared evenly.
    """
    assert (start is None) == (config.init_checkpoint is None), "what it holds is settled before"
    slots = slots_of(manifest)
    # Workers start in other folders than the command did.
    config = replace(
        config,
        data_dir=_absolute(config.data_dir),
        upload_dir=None if config.upload_dir is None else _absolute(config.upload_dir),
        init_checkpoint=None if start is None else start.path,
    )
    size = settled_micro_batch(config, manifest.max_length, slots)
    return WorkPlan(config, run, identity(manifest), attempt, size, threads, slots, start)


def plan_at(plan: WorkPlan, run: RunDir) -> WorkPlan:
    """The plan of a worker whose folder is `run`; where that stands in for the driver's, so may its other paths."""
    if run.home is None:
        return plan
    config, start = plan.config, plan.config.init_checkpoint
    if not storage.is_remote(config.data_dir) and not _are_here(plan):
        config = replace(config, data_dir=address_like(run.home, config.data_dir))
    if start is not None and not storage.is_remote(start):  # another may lie here under that path
        config = replace(config, init_checkpoint=address_like(run.home, start))
    return replace(plan, run=run, config=config)


def _are_here(plan: WorkPlan) -> bool:
    """Whether the plan's blocks lie on this machine under their path."""
    try:
        return identity(Manifest.load(plan.config.data_dir)) == plan.data
    except (PmlmError, OSError):
        return False


def slots_of(manifest: Any) -> int:
    """K, the most slots a row of these blocks can have."""
    masking = manifest.config
    return max_predictions(manifest.max_length, float(masking.get("mask_prob", 0.15)), int(masking.get("max_block", 6)))


def _absolute(path: str) -> str:
    return path if "://" in path else storage.absolute(path)


def settled_micro_batch(config: PretrainConfig, max_length: int, slots: int) -> int:
    """Rows of one forward pass: as asked for, or what divides the batch evenly within the token budget.

    Raises:
        ConfigError: the global batch cannot be shared evenly.
    """
    limit = fitting_rows(max_length + 2 * slots, use_gpu=config.use_gpu)
    return micro_batch_size(config.batch_size, config.num_workers, config.micro_batch_size, limit)


def as_before(plan: WorkPlan) -> WorkPlan:
    """The plan with the micro-batches of the run's newest checkpoint, where no others are asked for."""
    from pmlm_core.training.resuming import micro_batch_before  # which imports torch; a plan or a doctor needs none

    kept = micro_batch_before(plan.run.checkpoints, plan.config.batch_size, use_gpu=plan.config.use_gpu)
    return plan if plan.config.micro_batch_size is not None or kept is None else replace(plan, micro_batch_size=kept)


def identity(manifest: Any) -> DataIdentity:
    """Which blocks a manifest describes."""
    return DataIdentity(manifest.fingerprint, manifest.tokenizer_fingerprint, manifest.vocab_size, manifest.max_length)
