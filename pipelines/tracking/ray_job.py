"""The job of a Ray cluster that this process runs in, as tags by which its runs are found in MLflow."""

import json
import os
from collections.abc import Mapping

JOB_TAG, JOBS_TAG = "ray_job_id", "ray_job_ids"
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what Ray hands to the process that it starts for a job
_MOST = 100  # a tag has a limited length


def job_id() -> str | None:
    """Id under which the job was submitted; None outside of one."""
    try:
        return json.loads(os.environ.get(_JOB_CONFIG, ""))["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return None


def job_tags(before: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run of this process: `ray_job_id`, and `ray_job_ids` with those that the run was begun in.

    Args:
        before: the run's tags so far.
    """
    here = job_id()
    if here is None:
        return {}
    earlier = [each for each in before.get(JOBS_TAG, "").split() if each != here]
    return {JOB_TAG: here, JOBS_TAG: " ".join([*earlier, here][-_MOST:])}
