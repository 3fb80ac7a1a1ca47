"""Runs from their folders, as `pmlm finetune` and `pmlm sweep` leave them: where there is no MLflow."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.compare.config import CompareConfig
from pipelines.compare.fetched import Fetched, fetch
from pipelines.compare.runs import FINETUNE, SWEEP, TRIAL, Curve, Run, by_epoch
from pipelines.compare.untracked import costs, untracked
from pipelines.console import warn
from pipelines.finetune.rundir import MODEL
from pipelines.run_folder import RUN_FILE
from pipelines.run_place import folder_of
from pipelines.tracking import journal, record
from pipelines.tracking.record import Record
from pipelines.tracking.redact import redact
from pmlm_core import storage
from pmlm_core.addresses import is_remote, join
from pmlm_core.errors import ConfigError, DataError, in_a_line

Named = Callable[[Path], str]

# Folders of runs that hold no runs.
_INSIDE = frozenset({"model", "features", "checkpoints", "predictions", "paired", "tune", "ray", "mlruns", "tensors"})


class FolderSource:
    """Folders, and every run below them. Of those in a store, options and figures are fetched; `close` removes them."""

    def __init__(self, config: CompareConfig) -> None:
        """Look that the folders are there.

        Raises:
            ConfigError: one is not.
            OSError, DataError: a store cannot be reached, or refuses.
        """
        self._config = config
        self._scratch = ExitStack()
        self._fetched: list[Fetched] = []
        self._folders: list[tuple[Path, Named]] = []
        try:
            for place in config.folders:
                self._folders.append(self._in_store(place) if is_remote(place) else self._here(place))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove what was fetched."""
        self._scratch.close()

    def _here(self, place: str) -> tuple[Path, Named]:
        if not Path(place).is_dir():
            raise ConfigError(f"folders: {place} is no folder; name run folders, or the ones they lie in")
        return Path(place).absolute(), str

    def _in_store(self, place: str) -> tuple[Path, Named]:
        """What the store has; where it does not answer, or has nothing yet, what was worked on here."""
        here = Path(folder_of(place))
        try:
            found = fetch(place, Path(self._scratch.enter_context(TemporaryDirectory(prefix="pmlm-compare-"))))
        except (OSError, DataError, ConfigError) as error:
            if not here.is_dir():
                raise
            warn(f"{in_a_line(error)}; what {here} has of {redact(place)} is read instead")
            return here, partial(_by_address, place, here)
        self._fetched.append(found)
        return found.top, found.address

    def runs(self) -> list[Run]:
        """See `Source.runs`."""
        config = self._config
        found: dict[str, Run] = {}
        for folder, named in self._folders:
            for path in _run_folders(folder):
                run = _read(path, named)
                if run is not None:
                    found[run.id] = replace(run, model=named(path / MODEL) if self._has_model(path) else None)
        runs = list(found.values())
        if not any(run.stage in (FINETUNE, TRIAL) for run in runs):
            raise ConfigError(
                f"there is no run of pmlm finetune or pmlm sweep in {redact(', '.join(config.folders))}: runs are "
                f"folders with {RUN_FILE} and {journal.FILE_NAME}"
            )
        if not config.sweep:
            return runs
        chosen = [run for run in runs if run.tags.get("sweep") in config.sweep]
        if not chosen:
            sweeps = sorted({run.tags["sweep"] for run in runs if "sweep" in run.tags})
            raise ConfigError(
                f"{redact(', '.join(config.folders))} has no trial of sweep {', '.join(config.sweep)}; "
                f"sweeps: {', '.join(sweeps) or 'none'}"
            )
        return chosen

    def _has_model(self, run: Path) -> bool:
        return (run / MODEL).is_dir() or any(run / MODEL in found.models for found in self._fetched)

    def history(self, run: Run, figure: str) -> Curve:
        """See `Source.history`."""
        name = f"eval/{figure}"
        entries = journal.read(Path(run.folder or "") / journal.FILE_NAME)
        return by_epoch([(entry.step, entry.metrics[name]) for entry, _ in entries if name in entry.metrics])

    def paired(self, run: Run, split: str) -> dict[str, Any] | None:
        """See `Source.paired`; a damaged file is told and counts as none."""
        path = Path(run.folder or "") / "paired" / f"{split}.json"
        store = next((each for each in self._fetched if path.is_relative_to(each.folder)), None)
        where = str(path) if store is None else store.address(path)
        try:
            told = storage.read_if_there(where)
            content = None if told is None else json.loads(told)
        except (OSError, ValueError, DataError) as error:
            warn(f"{redact(where)} cannot be read: {error}")
            return None
        return content if isinstance(content, dict) else None


def _by_address(place: str, here: Path, path: Path) -> str:
    """The address of a path in `here`, which stands for `place`; above it, the path itself."""
    return join(place, *path.relative_to(here).parts) if path.is_relative_to(here) else str(path)


def _run_folders(top: Path) -> Iterator[Path]:
    """Folders of runs in `top`, itself among them, in the order of their names."""
    for folder, below, files in os.walk(top):
        below[:] = sorted(name for name in below if name not in _INSIDE and not name.startswith("."))
        if record.FILE_NAME in files or RUN_FILE in files:
            yield Path(folder)


def _read(folder: Path, named: Named) -> Run | None:
    """The run of a folder; None for one of another stage, and, said aloud, for one that is damaged.

    Args:
        named: what the user calls a path: for a run that MLflow never had, that is its id.
    """
    metrics = costs(folder)
    times: list[float] = []
    for entry, _ in journal.read(folder / journal.FILE_NAME):
        metrics.update(entry.metrics)
        times.append(entry.time)
    try:
        known = Record.load(folder)
        run = untracked(folder, named) if known is None else _tracked(folder, known, named)
    except (OSError, ValueError, DataError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).replace(str(folder), named(folder))
        warn(f"{redact(named(folder))} is left out: it cannot be read ({reason})")
        return None
    if run is None or run["tags"].get("stage") not in (FINETUNE, TRIAL, SWEEP):
        return None
    start, end = (min(times), max(times)) if times else (None, None)
    return Run(**run, metrics=metrics, start=start, end=end, folder=str(folder))


def _tracked(folder: Path, known: Record, named: Named) -> dict[str, Any]:
    """Of a run that was meant for MLflow, what would be there."""
    above = known.parent_of(folder)
    above_named = None if above is None else named(above)  # of a fetched run it must be in the store too
    parent = None if above is None else Record.load(above)
    return {
        "id": known.run_id or named(folder),
        "name": known.run_name,
        "params": dict(known.params),
        "tags": dict(known.tags),
        "status": known.status,
        "parent": (parent and parent.run_id) or above_named,
    }
