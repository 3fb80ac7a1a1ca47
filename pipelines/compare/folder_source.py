"""Runs from their folders, as `pmlm finetune` and `pmlm sweep` leave them: where there is no MLflow."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.compare.config import CompareConfig
from pipelines.compare.fetched import fetch
from pipelines.compare.runs import FINETUNE, SWEEP, TRIAL, Curve, Run, by_epoch
from pipelines.compare.untracked import costs, untracked
from pipelines.console import warn
from pipelines.finetune.rundir import MODEL
from pipelines.run_folder import RUN_FILE
from pipelines.run_place import folder_of
from pipelines.tracking import journal, record
from pipelines.tracking.record import Record
from pmlm_core.addresses import is_remote, join
from pmlm_core.errors import ConfigError, DataError

# Folders of runs that hold no runs.
_INSIDE = frozenset({"model", "features", "checkpoints", "predictions", "paired", "tune", "ray", "mlruns", "tensors"})


@dataclass(frozen=True)
class _Place:
    """A folder of runs as it was named, and the one of this machine to read; of fetched runs, which have a model."""

    named: str
    folder: Path
    models: frozenset[Path] | None = None

    def as_named(self, run: Run, path: Path) -> Run:
        """A run with what was read at `path` called by its address, if the place has one."""
        model = path / MODEL
        there = model.is_dir() if self.models is None else model in self.models
        parent = run.parent and self._named(run.parent)
        return replace(run, id=self._named(run.id), parent=parent, model=self._named(str(model)) if there else None)

    def _named(self, path: str) -> str:
        if not is_remote(self.named) or not Path(path).is_relative_to(self.folder):
            return path
        return join(self.named, *Path(path).relative_to(self.folder).parts)


class FolderSource:
    """Folders, and every run below them; what lies in a store and not on this machine is fetched from there."""

    def __init__(self, config: CompareConfig) -> None:
        """Look that the folders are there.

        Raises:
            ConfigError: one is not.
            OSError, DataError: a store cannot be reached, or refuses.
        """
        self._config = config
        self._scratch = tempfile.TemporaryDirectory(prefix="pmlm-compare-")
        self._places: list[_Place] = []
        for number, named in enumerate(config.folders):
            folder = Path(folder_of(named)).absolute()
            if is_remote(named) and not Path(folder_of(named)).is_dir():
                self._places.append(_Place(named, *fetch(named, Path(self._scratch.name) / str(number))))
            elif folder.is_dir():
                self._places.append(_Place(named, folder))
            else:
                raise ConfigError(f"folders: {named} is no folder; name run folders, or the ones they lie in")

    def runs(self) -> list[Run]:
        """See `Source.runs`."""
        config = self._config
        found: dict[str, Run] = {}
        for place in self._places:
            for path in _run_folders(place.folder):
                run = _read(path)
                if run is not None:
                    run = place.as_named(run, path)
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
