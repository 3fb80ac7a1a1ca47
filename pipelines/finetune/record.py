"""What MLflow is told of a seed: options as they were settled, fingerprints of what went in, files that came of it."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.console import warn
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import MODEL, SCORES, read_scores
from pipelines.finetune.source import TASK_FILE
from pipelines.run_folder import RunDir

if TYPE_CHECKING:
    from pipelines.tracking.record import Record


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


def send_files(job: Job, tracking_uri: str | None = None) -> None:
    """Send the files of a finished seed.

    Args:
        tracking_uri: the store, if it is not the one of the job's options.
    """
    from pipelines.tracking.artifacts import log_artifacts

    log_artifacts(job.run.path, files_of(job.run), tracking_uri or job.config.tracking_uri, warn=warn)


def files_of(run: RunDir) -> list[str]:
    """Files of a finished seed or trial that go to MLflow: scores, predictions, what paired tests need; no model."""
    result = read_scores(run)
    assert result is not None, "a seed that ends without an error has written its scores"
    named = [SCORES, f"{MODEL}/{TASK_FILE}", *result["predictions"], *result.get("paired", [])]
    return [name for name in named if (run.path / name).is_file()]


def catch_up(job: Job) -> None:
    """Send what an earlier command, killed or without an answer, has left of a finished seed; nothing if it has not.

    It goes where that one sent it, unless another store is named: the default is one of the working directory.
    """
    from pipelines.tracking.record import Record
    from pipelines.tracking.redact import redact
    from pipelines.tracking.sink import MlflowSink
    from pipelines.tracking.store import NONE, resolve, sqlite_file

    folder, named = job.run.path, job.config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    record = Record.load(folder)
    if record is None or named == NONE:
        return
    uri = resolve(named or record.tracking_uri)
    if record.tracking_uri == redact(uri) and has_arrived(folder, record):
        return
    file, why_not = sqlite_file(uri), ""
    if not named and file is not None and not file.parent.is_dir():
        why_not = f"the folder of {file}, where it is tracked, is gone"
    elif "://***@" in uri:
        why_not = f"user and password of {uri} are not kept on disk"
    if why_not:
        again = "give the address by --tracking_uri or MLFLOW_TRACKING_URI, and the same command sends the rest"
        warn(f"MLflow has not received everything of the run in {folder}, and {why_not}; {again}")
        return
    MlflowSink(folder, uri, record.experiment, record.run_name, record.params, record.tags).finish("FINISHED")
    send_files(job, uri)


def has_arrived(folder: Path, record: "Record") -> bool:
    """Whether MLflow has the end and the files of a run that has its scores.

    Records of earlier versions do not say which files were sent, only which were still to be.
    """
    from pipelines.tracking.record import FILE_NAME

    if record.status != "FINISHED" or not record.delivered or record.pending_artifacts:
        return False
    said = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    return "sent_artifacts" not in said or SCORES in record.sent_artifacts
