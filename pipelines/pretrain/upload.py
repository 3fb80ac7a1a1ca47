"""Pre-training's copies in upload_dir: UPLOAD_DIR/RUN, see pipelines/upload/checkpoints.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.run_folder import Events, RunDir
from pipelines.tracking.redact import redact
from pipelines.upload import checkpoints
from pipelines.upload.background import Uploads, short
from pipelines.upload.claim import claim, may_be_away
from pmlm_core import storage
from pmlm_core.errors import DataError

COMMAND = "pmlm pretrain"


def home_of(run: RunDir, upload_dir: str) -> str:
    """Where a run's copies lie."""
    return storage.join(upload_dir, run.name)


def uploads_of(run: RunDir, upload_dir: str, keep: int, events: Events) -> Uploads:
    """What copies the run's checkpoints there, the `keep` newest and the best."""
    home = home_of(run, upload_dir)
    return Uploads(lambda warn: checkpoints.mirror(run, home, keep, warn), home, events.add)


def send_record(run: RunDir, upload_dir: str, warn: Callable[[str], None]) -> None:
    """Copy the journal and what the run knows of MLflow as they are at its end; a store that is away is warned of."""
    home = home_of(run, upload_dir)
    try:
        for path in (run.path / name for name in checkpoints.BESIDE):
            if path.exists():
                storage.write_bytes(storage.join(home, path.name), path.read_bytes())
    except (OSError, DataError) as error:
        warn(f"the end of the run's record did not get to {redact(home)} ({short(error)})")


def fetch(
    run: RunDir,
    upload_dir: str,
    newest: Path | None,
    check: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
) -> Path | None:
    """Fetch the newest whole checkpoint of this run that is newer than `newest`, the run's own.

    Args:
        newest: the run's newest good checkpoint here.
        check: raises if the record it is given is not that of this run.
        say: told what was fetched, and what was passed over as damaged.

    Returns:
        The folder of the fetched checkpoint, or `newest`.

    Raises:
        ConfigError, CheckpointError: what lies in upload_dir is another run's, or in use by another command; or there
            is no checkpoint here and the store is away, has only damaged ones, or cannot be written.
    """
    home = home_of(run, upload_dir)
    with may_be_away(home, upload_dir, can_do_without=newest is not None, say=say):
        claim(run, home, COMMAND, check, say)
        return checkpoints.fetch(run, home, newest, say)
    return newest
