"""The MLflow runs of a job, found by the tag that every run of a job has."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.submit.environment import TRACKING, TRACKING_METADATA
from pipelines.tracking.delivery import PARENT_TAG
from pipelines.tracking.patience import Attempt
from pipelines.tracking.ray_job import JOB_TAG, JOBS_TAG
from pipelines.tracking.redact import redact
from pipelines.tracking.store import resolve, set_client_defaults, sqlite_file

_PATIENCE = 60.0


@dataclass(frozen=True)
class Runs:
    """Lines about the runs that were found, or why none was, with the way to find them by hand."""

    lines: tuple[str, ...] = ()
    failure: str | None = None


def runs_of(job: str, metadata: Mapping[str, str], given: str | None) -> Runs:
    """Look for a job's runs.

    Args:
        metadata: of the job; it tells where the job was sent to track.
        given: the store to look in instead.
    """
    uri = given or metadata.get(TRACKING_METADATA) or os.environ.get(TRACKING)
    by_hand = f"they have the tag {JOB_TAG}; search for: tags.{JOB_TAG} = '{job}'"
    if uri is None:
        return Runs(failure=f"no MLflow store is known here (--tracking_uri); where its runs are, {by_hand}")
    uri = resolve(uri)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        return Runs(failure=f"MLflow's {redact(uri)} is not on this machine; there, {by_hand}")
    attempt = Attempt(lambda: _search(uri, job), _PATIENCE, "submit-runs")
    if attempt.failure is not None:
        return Runs(failure=f"MLflow at {redact(uri)} does not answer ({attempt.failure}); {by_hand}")
    return Runs(tuple(attempt.result or ()), None if attempt.result else f"MLflow at {redact(uri)} has no run of it")


def _search(uri: str, job: str) -> list[str]:
    set_client_defaults()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiments = {each.experiment_id: each.name for each in client.search_experiments()}
    found: list[Any] = []
    token: str | None = ""
    while token is not None:
        page = client.search_runs(
            list(experiments), f"tags.{JOBS_TAG} LIKE '%{job}%'", max_results=1000, page_token=token or None
        )
        found += page
        token = page.token or None
    inside = sum(PARENT_TAG in run.data.tags for run in found)
    lines = [
        f"{run.info.status:<9} {run.info.run_name}, experiment {experiments[run.info.experiment_id]}: {place}"
        for run in found
        if PARENT_TAG not in run.data.tags and (place := _place(uri, run))
    ]
    return [*lines, *([f"and {inside} runs that are parts of others"] if inside else [])]


def _place(uri: str, run: Any) -> str:
    if uri.startswith("http"):
        return f"{redact(uri)}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return f"run {run.info.run_id} in {redact(uri)}"
