"""Runs from their folders, as `pmlm finetune` and `pmlm sweep` leave them: for when there is no MLflow."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.compare.config import CompareConfig
from pipelines.compare.runs import FINETUNE, SWEEP, TRIAL, Curve, Run, by_epoch
from pipelines.compare.untracked import costs, untracked
from pipelines.console import warn
from pipelines.run_folder import RUN_FILE
from pipelines.run_place import folder_of
from pipelines.tracking import journal, record
from pipelines.tracking.record import Record
from pmlm_core.addresses import is_remote
from pmlm_core.errors import ConfigError, DataError

# Folders of runs that hold no runs.
_INSIDE = frozenset({"model", "features", "checkpoints", "predictions", "paired", "tune", "ray", "mlruns", "tensors"})


class FolderSource:
    """Folders, and every run below them."""

    def __init__(self, config: CompareConfig) -> None:
        """Look that the folders are there.

        Raises:
            ConfigError: one is not.
        """
        for folder in config.folders:
            if not Path(folder_of(folder)).is_dir():
                where = "where they were made, or where the command that made them was given again"
                not_here = f"; runs in a store are read {where}" if is_remote(folder) else ""
                raise ConfigError(
                    f"folders: {folder} is no folder; name run folders, or the ones they lie in{not_here}"
                )
        self._config = config

    def runs(self) -> list[Run]:
        """See `Source.runs`."""
        config = self._config
        found: dict[str, Run] = {}
        for folder in config.folders:
            for path in _run_folders(Path(folder_of(folder)).absolute()):
                run = _read(path)
                if run is not None:
                    found[run.id] = run
        runs = list(found.values())
        if not any(run.stage in (FINETUNE, TRIAL) for run in runs):
            raise ConfigError(
                f"there is no run of pmlm finetune or pmlm sweep in {', '.join(config.folders)}: runs are folders with "
                f"{RUN_FILE} and {journal.FILE_NAME}"
            )
        if not config.sweep:
            return runs
        chosen = [run for run in runs if run.tags.get("sweep") in config.sweep]
        if not chosen:
            sweeps = sorted({run.tags["sweep"] for run in runs if "sweep" in run.tags})
            raise ConfigError(
                f"{', '.join(config.folders)} has no trial of sweep {', '.join(config.sweep)}; "
                f"sweeps: {', '.join(sweeps) or 'none'}"
            )
        return chosen

    def history(self, run: Run, figure: str) -> Curve:
        """See `Source.history`."""
        name = f"eval/{figure}"
        entries = journal.read(Path(run.folder or "") / journal.FILE_NAME)
        return by_epoch([(entry.step, entry.metrics[name]) for entry, _ in entries if name in entry.metrics])

    def paired(self, run: Run, split: str) -> dict[str, Any] | None:
        """See `Source.paired`; a damaged file is told and counts as none."""
        path = Path(run.folder or "") / "paired" / f"{split}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            warn(f"{path} cannot be read: {error}")
            return None
        return content if isinstance(content, dict) else None


def _run_folders(top: Path) -> Iterator[Path]:
    """Folders of runs in `top`, itself among them, in the order of their names."""
    for folder, below, files in os.walk(top):
        below[:] = sorted(name for name in below if name not in _INSIDE and not name.startswith("."))
        if record.FILE_NAME in files or RUN_FILE in files:
            yield Path(folder)


def _read(folder: Path) -> Run | None:
    """The run of a folder; None for one of another stage, and, said aloud, for one that is damaged."""
    metrics = costs(folder)
    times: list[float] = []
    for entry, _ in journal.read(folder / journal.FILE_NAME):
        metrics.update(entry.metrics)
        times.append(entry.time)
    try:
        known = Record.load(folder)
        run = untracked(folder) if known is None else _tracked(folder, known)
    except (OSError, ValueError, DataError, KeyError, TypeError, AttributeError) as error:
        warn(f"{folder} is left out: it cannot be read ({error})")
        return None
    if run is None or run["tags"].get("stage") not in (FINETUNE, TRIAL, SWEEP):
        return None
    start, end = (min(times), max(times)) if times else (None, None)
    return Run(**run, metrics=metrics, start=start, end=end, folder=str(folder))


def _tracked(folder: Path, known: Record) -> dict[str, Any]:
    """Of a run that was meant for MLflow, what would be there."""
    above = known.parent_of(folder)
    parent = None if above is None else Record.load(above)
    return {
        "id": known.run_id or str(folder),
        "name": known.run_name,
        "params": dict(known.params),
        "tags": dict(known.tags),
        "status": known.status,
        "parent": None if above is None else (parent and parent.run_id) or str(above),
    }
