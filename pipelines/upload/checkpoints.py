"""Checkpoints copied to an object store, another folder or the driver's machine, and fetched from there.

HOME/
    run.json, metrics.jsonl, mlflow.json     as they were when the newest checkpoint was copied
    checkpoints/step-00000128/               checkpoint.json last: a folder without it was not copied whole
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

from pipelines.handover import files
from pipelines.run_folder import CHECKPOINTS, RUN_FILE, RunDir
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pipelines.tracking.redact import redact
from pipelines.upload.background import check_wanted, not_all_there, short
from pmlm_core import storage
from pmlm_core.addresses import path_in
from pmlm_core.errors import CheckpointError
from pmlm_core.training import checkpoint

BESIDE = (RUN_FILE, JOURNAL, MLFLOW_RECORD)
"""Files of a run's folder that go with every checkpoint, so that the fetched run is the same run."""
_HELD = ".uploading"
_THREADS = 4


def mirror(
    run: RunDir,
    home: str,
    keep: int,
    warn: Callable[[str], None],
    *,
    beside: Collection[str] = BESIDE,
    best_first: bool = False,
) -> list[str]:
    """Copy the run's checkpoints that `home` lacks, then remove all there but the `keep` newest and the best.

    Nothing is removed that is newer than those, nor before all that is to stay is there: another command may have
    copied on meanwhile.

    Args:
        warn: told which checkpoints are left out, since their manifests cannot be read.
        best_first: going on from a newer one without the best would not do.

    Returns:
        Names of the checkpoints copied.

    Raises:
        OSError, DataError: the store cannot be reached, or refuses.
        GivenUp: nobody waits for this any more.
    """
    root = storage.join(home, CHECKPOINTS)
    there = _whole(root)
    here, left_out = _manifests(run, warn)
    every = sorted({*there, *here}, key=_step)
    scores = {name: json.loads(here.get(name) or there[name]).get("score") for name in every}
    best = min((name for name in every if scores[name] is not None), key=lambda name: scores[name], default=None)
    newest = every[-keep:]
    stay = {*newest, *([] if best is None else [best])}
    missing = [name for name in reversed(every) if name in stay and name in here and there.get(name) != here[name]]
    if best_first:
        missing.sort(key=lambda name: name != best)
    copied = [name for name in missing if _send(run, name, home, beside)]
    pruned = stay - (there.keys() - missing) - {*copied}  # here, before they were copied
    if pruned or left_out - there.keys():
        not_all_there()
    if pruned or not newest:
        return copied
    for name in storage.folders_in(root):
        if name not in stay and checkpoint.step_of(name) is not None and _step(name) < _step(newest[0]):
            check_wanted()
            if not _renames(home):  # first: what is half removed is not whole
                storage.remove_file(storage.join(root, name, checkpoint.MANIFEST))
            storage.remove_folder(storage.join(root, name))
    return copied


def _renames(home: str) -> bool:
    """Whether a checkpoint appears and goes there as a whole: in the driver's folder, where others look for it."""
    return home.startswith(f"{files.SCHEME}://")


def fetch(
    run: RunDir,
    home: str,
    newest: Path | None,
    say: Callable[[str], None],
    *,
    beside: Collection[str] = BESIDE,
    needs: Callable[[Path], str | None] = lambda folder: None,
) -> Path | None:
    """Fetch the newest whole checkpoint of this run that is newer than `newest`, the run's own.

    Args:
        newest: the run's newest good checkpoint here.
        say: told what was fetched, and what was passed over as damaged.
        needs: the name of another checkpoint, an older one, without which the one in the folder is of no use.

    Returns:
        The folder of the fetched checkpoint, or `newest`.

    Raises:
        Damaged: there is none here, and of those in `home` none is whole.
        OSError, DataError: the store cannot be reached, or refuses.
    """
    names = list(_whole(storage.join(home, CHECKPOINTS)))
    after = -1 if newest is None else checkpoint.step_of(newest.name) or 0
    wanted = sorted((name for name in names if _step(name) > after), key=_step, reverse=True)
    damaged = []
    for name in wanted:
        final, gone = run.checkpoints / name, None
        reason = take(run, home, name, beside)
        if reason is None and (other := needs(final)) not in (None, name) and not (run.checkpoints / other).exists():
            gone = take(run, home, other, ()) if other in names else "it is not there"
            reason = gone and f"it needs {other}: {gone}"
            damaged += [other] if gone else []
        if reason is None:
            say(f"fetched {name} of this run from {redact(home)}")
            _forget(home, damaged)
            return final
        if gone:
            shutil.rmtree(final, ignore_errors=True)
        say(f"warning: {name} in {redact(home)} is damaged ({reason}); going back to the one before it")
        damaged.append(name)
    if newest is None and wanted:
        raise checkpoint.Damaged(
            f"no checkpoint of this run in {redact(home)} is whole: remove them there to start over from step 0, or "
            "choose another run_name"
        )
    _forget(home, damaged)
    return newest


def _forget(home: str, damaged: Collection[str]) -> None:
    """Let checkpoints count as not copied: those of the same steps will be written again, to the same manifests."""
    with contextlib.suppress(OSError):
        for name in damaged:
            storage.remove_file(storage.join(home, CHECKPOINTS, name, checkpoint.MANIFEST))


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


def _send(run: RunDir, name: str, home: str, beside: Collection[str] = BESIDE) -> bool:
    """Copy a checkpoint, files first; False if it was pruned here in the meantime."""
    held, final = run.path / _HELD, storage.join(home, CHECKPOINTS, name)
    target = storage.join(home, CHECKPOINTS, checkpoint.partial_of(Path(name)).name) if _renames(home) else final
    shutil.rmtree(held, ignore_errors=True)
    try:
        _hold(run.checkpoints / name, held)
        if not (held / checkpoint.MANIFEST).exists():
            return False
        check_wanted()
        storage.remove_file(storage.join(target, checkpoint.MANIFEST))
        for file in (run.path / each for each in beside):
            if file.exists():
                storage.write_bytes(storage.join(home, file.name), file.read_bytes())  # not mapped: it may be cut
        names = checkpoint.read_manifest(held)["files"]

        def copy(file: str) -> None:
            check_wanted()
            storage.copy_file(held / file, storage.join(target, file))

        contexts = [copy_context() for _ in names]  # of how long a store is waited for, and by whom
        with ThreadPoolExecutor(_THREADS) as pool:  # a file goes part by part, several files beside each other
            for _ in pool.map(lambda context, file: context.run(copy, file), contexts, names):
                pass
        copy(checkpoint.MANIFEST)
        if target != final:
            files.kept(home).rename(path_in(target), path_in(final))
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


def take(run: RunDir, home: str, name: str, beside: Collection[str]) -> str | None:
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
        there = set(storage.names_in(home)) if beside else set()
        for each in there & set(beside) - {RUN_FILE}:
            storage.fetch_file(storage.join(home, each), partial.with_name(f"{partial.name}.file"))
            partial.with_name(f"{partial.name}.file").replace(run.path / each)
        partial.rename(final)
    except checkpoint.Damaged as error:
        return str(error)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return None


def _manifests(run: RunDir, warn: Callable[[str], None]) -> tuple[dict[str, bytes], set[str]]:
    """Manifests of the run's checkpoints by name, and names of those left out that the same command may yet copy.

    An older one that is damaged is not among these: nobody writes it again, and nobody needs it.
    """
    found, left_out, steps = {}, set(), checkpoint.all_steps(run.checkpoints)
    for folder in steps:
        try:
            checkpoint.read_manifest(folder)
            found[folder.name] = (folder / checkpoint.MANIFEST).read_bytes()
        except (OSError, CheckpointError) as error:
            if folder.exists():  # else it was pruned meanwhile
                warn(f"{folder.name} is not uploaded ({short(error)}); the others are")
                if folder == steps[-1] or not isinstance(error, checkpoint.Damaged):
                    left_out.add(folder.name)
    return found, left_out


def _step(name: str) -> int:
    return checkpoint.step_of(name) or 0
