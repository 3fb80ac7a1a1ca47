"""Checkpoints copied to an object store or another folder behind training's back, and fetched where the disk was lost.

    UPLOAD_DIR/RUN/
        run.json, metrics.jsonl, mlflow.json     as they were when the newest checkpoint was copied
        checkpoints/step-00000128/               checkpoint.json last: a folder without it was not copied whole

A store that is away costs training nothing: it is said, and the next checkpoint or the end of the run catches up.
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipelines.pretrain import lease
from pipelines.run_folder import CHECKPOINTS, RUN_FILE, Events, RunDir
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pipelines.tracking.redact import redact
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, ConfigError, DataError
from pmlm_core.training import checkpoint

_BESIDE = (RUN_FILE, JOURNAL, MLFLOW_RECORD)
_HELD = ".uploading"
_THREADS = 4


def home_of(run: RunDir, upload_dir: str) -> str:
    """Where a run's copies lie."""
    return storage.join(upload_dir, run.name)


_LEAVING_S, _LEAVING_PATIENCE_S = 240.0, 10.0  # within the grace that a leaving command gives its workers


class Uploads:
    """Keeps `upload_dir` up to date from a background thread, which `wake` starts and `close` ends."""

    def __init__(self, run: RunDir, upload_dir: str, keep: int, events: Events):
        self._run, self._home, self._keep = run, home_of(run, upload_dir), keep
        self._events = events
        self._wanted, self._closing, self._leaving = threading.Event(), threading.Event(), False
        self._thread: threading.Thread | None = None
        self._away = False
        self._said: set[str] = set()

    def wake(self) -> None:
        """There is a new checkpoint."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pmlm-upload", daemon=True)
            self._thread.start()
        self._wanted.set()

    def close(self, leaving: bool = False) -> None:
        """Catch up with what is missing, or say that it cannot be; raises nothing.

        Args:
            leaving: the machine goes, or the user waits for the end: a store that is away is not waited for, and one
                that is slow for four minutes at most. The same command catches up.
        """
        self._leaving = leaving
        self._closing.set()
        self.wake()
        if self._thread is not None:
            self._thread.join(_LEAVING_S if leaving else None)

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            last = self._closing.is_set()
            with storage.patient_for(_LEAVING_PATIENCE_S) if self._leaving else nullcontext():
                self._mirror(last)
            if last:
                return

    def _mirror(self, last: bool) -> None:
        try:
            for name in mirror(self._run, self._home, self._keep, self._warn_once):
                self._events.add("uploaded", f"{name} uploaded to {redact(self._home)}")
            self._away = False
        except Exception as error:
            if not self._away or last:
                then = "the same command again catches up" if last else "training goes on, the next upload catches up"
                self._events.add(
                    "warning", f"checkpoints cannot be uploaded to {redact(self._home)} ({_short(error)}); {then}"
                )
            self._away = True

    def _warn_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._events.add("warning", text)


def mirror(run: RunDir, home: str, keep: int, warn: Callable[[str], None]) -> list[str]:
    """Copy the run's checkpoints that `home` lacks, then remove all there but the `keep` newest and the best.

    Args:
        warn: told which checkpoints are left out, since their manifests cannot be read.

    Returns:
        Names of the checkpoints copied.

    Raises:
        OSError, DataError: the store cannot be reached, or refuses.
    """
    root = storage.join(home, CHECKPOINTS)
    there = _whole(root)
    here = {folder.name: _manifest_of(folder, warn) for folder in checkpoint.all_steps(run.checkpoints)}
    here = {name: content for name, content in here.items() if content}
    every = sorted({*there, *here}, key=_step)
    scores = {name: json.loads(here.get(name) or there[name]).get("score") for name in every}
    best = min((name for name in every if scores[name] is not None), key=lambda name: scores[name], default=None)
    stay = {*every[-keep:], best}
    missing = [name for name in reversed(every) if name in stay and name in here and there.get(name) != here[name]]
    copied = [name for name in missing if _send(run, name, home)]
    for name in storage.folders_in(root):
        if name not in stay and checkpoint.step_of(name) is not None:
            storage.remove_file(
                storage.join(root, name, checkpoint.MANIFEST)
            )  # first: what is half removed is not whole
            storage.remove_folder(storage.join(root, name))
    return copied


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
    try:
        known = _claim(run, home)
        try:
            check(known)
        except (KeyError, TypeError):
            raise ConfigError(f"{redact(home)}/{RUN_FILE} is no record of a run: choose another run_name") from None
        lease.take(run, home, say)
        names = list(_whole(storage.join(home, CHECKPOINTS)))
        after = -1 if newest is None else checkpoint.step_of(newest.name) or 0
        wanted = sorted((name for name in names if _step(name) > after), key=_step, reverse=True)
        for name in wanted:
            reason = _take(run, home, name)
            if reason is None:
                say(f"fetched {name} of this run from {redact(home)}")
                return run.checkpoints / name
            say(f"warning: {name} in {redact(home)} is damaged ({reason}); going back to the one before it")
    except (OSError, DataError) as error:
        if newest is not None:
            say(f"warning: {redact(home)} has not answered ({_short(error)}); going on with the checkpoints here")
            return newest
        raise CheckpointError(
            f"upload_dir {redact(upload_dir)} cannot be used ({_short(error)}), and this run has no checkpoint here; "
            "it may have one there. Give the same command again when the store is back, or leave upload_dir out"
        ) from error
    if newest is None and wanted:
        raise CheckpointError(
            f"no checkpoint of this run in {redact(home)} is whole: remove them there to start over from step 0, or "
            "choose another run_name"
        )
    return newest


def _claim(run: RunDir, home: str) -> dict[str, Any]:
    """The record of the run in `home`; if there is none, this run's is put there: a store that refuses is met now."""
    if RUN_FILE not in storage.names_in(home):
        storage.copy_file(run.record, storage.join(home, RUN_FILE))
    content = storage.read_bytes(storage.join(home, RUN_FILE))
    try:
        return json.loads(content)
    except ValueError as error:
        raise ConfigError(
            f"{redact(home)}/{RUN_FILE} is no record of a run ({error}): choose another run_name"
        ) from None


def _whole(root: str) -> dict[str, bytes]:
    """Manifests of the checkpoints in `root` that were copied whole, by name."""
    found = {}
    for name in storage.folders_in(root):
        folder = storage.join(root, name)
        if checkpoint.step_of(name) is not None and checkpoint.MANIFEST in storage.names_in(folder):
            content = storage.read_bytes(storage.join(folder, checkpoint.MANIFEST))
            with contextlib.suppress(ValueError):  # torn: not whole
                if isinstance(json.loads(content), dict):
                    found[name] = content
    return found


def _send(run: RunDir, name: str, home: str) -> bool:
    """Copy a checkpoint, files first; False if it was pruned here in the meantime."""
    held, target = run.path / _HELD, storage.join(home, CHECKPOINTS, name)
    shutil.rmtree(held, ignore_errors=True)
    try:
        _hold(run.checkpoints / name, held)
        if not (held / checkpoint.MANIFEST).exists():
            return False
        storage.remove_file(storage.join(target, checkpoint.MANIFEST))
        for file in (run.path / beside for beside in _BESIDE):
            if file.exists():
                storage.write_bytes(storage.join(home, file.name), file.read_bytes())  # not mapped: it may be cut
        names = checkpoint.read_manifest(held)["files"]
        with ThreadPoolExecutor(_THREADS) as pool:  # a file goes part by part, several files beside each other
            for _ in pool.map(lambda file: storage.copy_file(held / file, storage.join(target, file)), names):
                pass
        storage.copy_file(held / checkpoint.MANIFEST, storage.join(target, checkpoint.MANIFEST))
    except FileNotFoundError:
        if (run.checkpoints / name).exists():
            raise
        return False
    finally:
        shutil.rmtree(held, ignore_errors=True)
    return True


def _hold(folder: Path, held: Path) -> None:
    """Second names for a checkpoint's files, which stay when it is pruned during a slow upload."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            other = held / file.relative_to(folder)
            other.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, other)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without hard links
                shutil.copyfile(file, other)


def _take(run: RunDir, home: str, name: str) -> str | None:
    """Fetch a checkpoint and what lies beside it; returns what is wrong with it, or None and it is in its place."""
    source, final = storage.join(home, CHECKPOINTS, name), run.checkpoints / name
    partial = checkpoint.partial_of(final)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        storage.fetch_file(storage.join(source, checkpoint.MANIFEST), partial / checkpoint.MANIFEST)
        for file in checkpoint.read_manifest(partial)["files"]:
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # `damage` says so
                storage.fetch_file(storage.join(source, file), partial / file)
        if reason := checkpoint.damage(partial):
            return reason
        for beside in set(_BESIDE) & set(storage.names_in(home)) - {RUN_FILE}:
            storage.fetch_file(storage.join(home, beside), partial.with_name(f"{partial.name}.file"))
            partial.with_name(f"{partial.name}.file").replace(run.path / beside)
        partial.rename(final)
    except checkpoint.Damaged as error:
        return str(error)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return None


def _manifest_of(folder: Path, warn: Callable[[str], None]) -> bytes:
    try:
        checkpoint.read_manifest(folder)
        return (folder / checkpoint.MANIFEST).read_bytes()
    except (OSError, CheckpointError) as error:
        if folder.exists():  # else it was pruned meanwhile
            warn(f"{folder.name} is not uploaded ({_short(error)}); the others are")
        return b""


def _step(name: str) -> int:
    return checkpoint.step_of(name) or 0


def _short(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))[:300]
