"""What MLflow is told of a seed: every option as it was settled, and the fingerprints of what went in."""

from dataclasses import asdict
from typing import Any

from pipelines.finetune.job import Job


def params_of(job: Job) -> dict[str, Any]:
    """A seed's parameters."""
    settled = {"micro_batch_size": job.micro_batch_size, "threads_per_worker": job.threads, "seed": job.seed}
    return {**asdict(job.config), **vars(job.recipe), **settled}


def tags_of(job: Job) -> dict[str, str]:
    """A seed's tags: code version, task, fingerprints of data and checkpoint."""
    from pipelines.tracking.code_version import code_version

    data = {f"data.{name}": identity for name, identity in job.identity()["data"].items()}
    pretrained = {f"pretrained.{name}": str(value) for name, value in job.source.described().items() if value}
    return {
        **code_version(),
        "stage": "finetune",
        "task": job.config.task,
        "metric": job.task.metric,
        "finetune_run": job.run.path.parent.name,
        **data,
        **pretrained,
    }
