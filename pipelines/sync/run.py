"""`pmlm sync`: send what runs' journals hold and MLflow has not received: figures, tags, final status, files, models.

A folder may be that of one run or hold many below it, as a sweep's does. A run that others are part of goes first: they
are created with its id. Of a run that has not finished figures go up to its newest checkpoint, as when its command
ends: it would do the steps after that again, and MLflow takes no figure twice. `--all` sends those, too.
"""

import contextlib
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.console import counted, say, warn
from pipelines.lock import locked
from pipelines.registry import models
from pipelines.run_place import folder_of
from pipelines.sync.config import SyncConfig
from pipelines.tracking import artifacts
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.record import FILE_NAME, Record
from pipelines.tracking.redact import redact
from pipelines.tracking.sink import EVERYTHING, due, holds_back
from pipelines.tracking.store import Deleted, resolve, sqlite_file
from pmlm_core.errors import ConfigError, DataError, PmlmError


@dataclass(frozen=True)
class Sent:
    """What became of one run: how many figures went, and whether all had arrived before.

    Attributes:
        held_after: the step after which figures were held back; None where none were.
    """

    record: Record
    uri: str
    figures: int
    arrived_before: bool
    held_after: int | None


def run(config: SyncConfig) -> None:
    """Send what is left of the run in the folder, or of all runs below it, and of those that they are part of.

    Raises:
        DataError: a run's record is damaged; nothing has been sent then.
        PmlmError: the store did not take a run within `timeout` seconds, or the run was deleted there.
        ConfigError: the folder holds no run, or one that is being trained, which sends its figures by itself.
    """
    top = Path(folder_of(config.run_dir)).absolute()
    if next(top.rglob(FILE_NAME), None) is None:
        raise ConfigError(
            f"{config.run_dir} holds no {FILE_NAME}, so it is not the folder of a tracked run or of a sweep; "
            "give the folder that pmlm pretrain, finetune or sweep printed; of a run in a store, on the machine where "
            "it was made, or where the command that made it was given again"
        )
    with locked(top, "pmlm sync"):
        folders = runs_below(top)
        sent = [_send(config, folder, top) for folder in folders]
        for folder, each in zip(folders, sent, strict=True):
            if each.record.run_tags:  # some of those runs had no id when this one went
                _send(config, folder, top)
    _tell(sent, config.run_dir)


def runs_below(top: Path) -> list[Path]:
    """Folders of the runs in `top` and below, and of those they are part of, wherever these lie: these first.

    Raises:
        DataError: a record is damaged, or there is none.
    """
    above: dict[Path, int] = {}  # how many runs a run is inside of

    def place(folder: Path) -> int:
        if folder not in above:
            record = Record.load(folder)
            if record is None:
                raise DataError(f"{folder} holds no {FILE_NAME}")
            parent = record.parent_of(folder)
            above[folder] = 0 if parent is None else place(parent) + 1
        return above[folder]

    found = [path.parent for path in top.rglob(FILE_NAME)]
    for folder in found or [top]:
        place(folder)
    return sorted(above, key=lambda folder: (above[folder], folder))


def _send(config: SyncConfig, folder: Path, top: Path) -> Sent:
    with contextlib.nullcontext() if folder == top else locked(folder, "pmlm sync"):  # `top` is locked already
        record, figures, last = _deliver(config, folder)
        uri = _address(config, record)
        before = record.delivered and not (record.pending_artifacts or record.pending_model)
        record.delivered = True
        record.save(folder)
        if record.pending_artifacts:
            artifacts.send_pending(folder, uri, warn=warn)
        if record.pending_model:
            models.register_pending(folder, uri, warn=warn)
    held_after = max(last, 0) if holds_back(folder, last) else None
    return Sent(record, uri, figures, before and not figures, held_after)


def _deliver(config: SyncConfig, folder: Path) -> tuple[Record, int, int]:
    """Send tags, figures and status of one run, trying again and again.

    Returns:
        Its record, how many figures went, and the last step that any could be of.
    """
    record = Record.load(folder)
    assert record is not None, "the folders are those with a record"
    uri = _address(config, record)
    deadline, pause = time.monotonic() + config.timeout, 1.0
    delivery, last = Delivery(folder, uri, record), EVERYTHING if config.all else due(folder, record)
    while True:
        try:
            return record, delivery.deliver(last), last
        except Deleted:  # asked again, it still would be
            raise
        except Exception as error:
            complaint = f"{type(error).__name__}: {redact(' '.join(str(error).split()))[:300]}"
            delivery.forget_connection()
        if time.monotonic() + pause > deadline:
            raise PmlmError(
                f"MLflow at {redact(uri)} did not take the run in {folder} within {config.timeout:.0f} s "
                f"({complaint}); nothing is lost, the same command goes on where it stopped"
            )
        time.sleep(pause)
        pause = min(15.0, pause * 2)


def _tell(sent: list[Sent], run_dir: str) -> None:
    _tell_what_went(sent)
    held = [each for each in sent if each.held_after is not None]
    if held:
        whose = f"after the newest checkpoints of {len(held)} runs that have not finished"
        if len(held) == 1:
            whose = f"after step {held[0].held_after} of run {held[0].record.run_name}"
        say(
            f"figures {whose} were held back, for the command that goes on does these steps again; if none will: "
            f"pmlm sync --run_dir {shlex.quote(run_dir)} --all"
        )


def _tell_what_went(sent: list[Sent]) -> None:
    uri, figures = redact(sent[0].uri), counted(sum(each.figures for each in sent), "figure")
    if len(sent) == 1:
        one = sent[0].record
        say(f"sent {figures} of run {one.run_name} ({one.status}) to {uri}, experiment {one.experiment}")
        return
    experiments = ", ".join(sorted({each.record.experiment for each in sent}))
    say(
        f"sent {figures} of {len(sent)} runs to {uri}, experiment {experiments}; "
        f"{sum(each.arrived_before for each in sent)} of the runs had arrived whole before"
    )


def _address(config: SyncConfig, record: Record) -> str:
    """The option, then the environment (it may hold user and password), then what the run was started with."""
    given = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or record.tracking_uri
    uri = resolve(given)
    file = sqlite_file(uri)
    if given == record.tracking_uri and file is not None and not file.parent.is_dir():
        raise ConfigError(
            f"the run was tracked in {file}, in a folder that is gone (was it a job's own?); give --tracking_uri"
        )
    if "://***@" in uri:
        raise PmlmError(
            f"user and password of {uri} are not kept on disk; give the full address in MLFLOW_TRACKING_URI"
        )
    return uri
