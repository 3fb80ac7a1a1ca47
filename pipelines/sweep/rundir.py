"""The folders of a sweep, opened: a new one is made, the same one is gone on with, another one is refused."""

import json
import time
from pathlib import Path
from typing import Any

from pipelines.finetune.job import changed
from pipelines.finetune.rundir import write_json
from pipelines.run_folder import RUN_FILE, check_is_new, write_record
from pipelines.sweep.course import Course
from pipelines.tracking.redact import redacted
from pmlm_core.errors import ConfigError

SWEEP_FILE = "sweep.json"


def open_course(course: Course) -> bool:
    """Make a benchmark's folder, or make sure that the one there is this sweep; returns whether it was there.

    Raises:
        ConfigError: it was started with other options, data or checkpoint.
    """
    if course.run.record.exists():
        check_course(course)
        return True
    check_is_new(course.run.path)
    content = {"identity": course.identity(), "source": course.job.source.described(), "started": time.time()}
    try:
        write_record(course.run, content)
    except OSError as error:
        raise ConfigError(f"output_dir: {course.run.path} cannot be made: {error.strerror}") from None
    return False


def check_course(course: Course) -> None:
    """Refuse another sweep in the folder of one; a folder that is not there yet is fine.

    Raises:
        ConfigError: it is another, or its record cannot be read.
    """
    if not course.run.record.exists():
        return
    try:
        before = json.loads(course.run.record.read_text(encoding="utf-8"))["identity"]
        differences = changed(before, course.identity())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{course.run.path / RUN_FILE} cannot be read ({error!r}): choose another run_name") from None
    if differences:
        raise ConfigError(
            f"the sweep in {course.run.path} was started otherwise: {'; '.join(differences)}. To go on with it, give "
            "the same; for a new one, choose another run_name or leave run_name out"
        )


def write_sweep(folder: Path, config: dict[str, Any]) -> None:
    """Note the options of the newest command."""
    write_json(folder / SWEEP_FILE, redacted(config))
