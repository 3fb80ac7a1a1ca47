"""What MLflow is told of a seed: options as they were settled, fingerprints of what went in, files that came of it."""

import json
from dataclasses import asdict
from typing import Any

from pipelines.console import warn
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import MODEL, SCORES, read_scores
from pipelines.finetune.source import TASK_FILE


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
        "scorers": json.dumps(dict(job.task.scorers())),
        "finetune_run": job.run.path.parent.name,
        **data,
        **pretrained,
    }


def open_sink(job: Job) -> Any:
    """The way to MLflow of a seed, which `job.run` is."""
    from pipelines.tracking.sink import MlflowSink

    config, name = job.config, f"{job.run.path.parent.name}-seed-{job.seed}"
    return MlflowSink(job.run.path, config.tracking_uri, config.experiment_name, name, params_of(job), tags_of(job))


def send_files(job: Job) -> None:
    """Send scores, predictions and what paired tests need of a finished seed, not the model."""
    from pipelines.tracking.artifacts import log_artifacts

    result = read_scores(job.run)
    assert result is not None, "a seed that ends without an error has written its scores"
    named = [SCORES, f"{MODEL}/{TASK_FILE}", *result["predictions"], *result.get("paired", [])]
    files = [name for name in named if (job.run.path / name).is_file()]
    log_artifacts(job.run.path, files, job.config.tracking_uri, warn=warn)


def catch_up(job: Job) -> None:
    """Send what an earlier command, killed or without an answer, has left of a finished seed; nothing if it has not."""
    from pipelines.tracking.record import Record
    from pipelines.tracking.redact import redact
    from pipelines.tracking.sink import MlflowSink
    from pipelines.tracking.store import NONE, resolve

    uri, record = resolve(job.config.tracking_uri), Record.load(job.run.path)
    if uri == NONE or record is None:
        return
    ended = record.tracking_uri == redact(uri) and record.status == "FINISHED" and record.delivered
    if not ended or SCORES not in record.sent_artifacts:
        MlflowSink(job.run.path, uri, record.experiment, record.run_name, record.params, record.tags).finish("FINISHED")
        send_files(job)
