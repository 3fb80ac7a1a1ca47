"""A checkpoint: a folder that `from_pretrained` loads by itself, plus the training state; written whole or not at all.

    step-00000128/
        config.json, model.safetensors, tokenizer files      what Hugging Face loads
        optimizer.safetensors, training_state.json           what resuming needs; no pickle anywhere
        checkpoint.json                                      size and SHA-256 of every file, written last

It is made under a temporary name, forced to disk, and renamed: a folder named `step-...` is whole, and if the disk
lied, the hashes say so and the one before it is taken.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pmlm_core.durable import force
from pmlm_core.errors import CheckpointError
from pmlm_core.inside import leads_outside

MANIFEST, STATE, OPTIMIZER = "checkpoint.json", "training_state.json", "optimizer.safetensors"
TRAINING_FILES = frozenset({MANIFEST, STATE, OPTIMIZER})
"""What only a resumed training needs, beside the model in the same folder."""
FORMAT_VERSION = 1
_NAME = re.compile(r"step-(\d{8,})")
_WRITING, _REPLACED, _PRUNED = ".writing-", ".replaced-", ".pruned-"
_DAMAGED = "damaged-"


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint besides the model."""

    step: int
    """Updates made; training goes on with step number `step`."""
    state: Mapping[str, Any]
    """JSON: fingerprints, figures, whatever the run needs to go on."""
    optimizer: Mapping[str, Tensor]
    score: float | None = None
    """Loss on held-out rows at this step, if it was measured; the lowest is the best checkpoint."""


def folder_of(root: Path, step: int) -> Path:
    return root / f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step that a checkpoint folder of this name holds, None if it is another folder's name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def partial_of(final: Path) -> Path:
    """Where a checkpoint is put together before it is renamed; what a kill leaves there, `sweep` removes."""
    return final.with_name(f"{_WRITING}{final.name}-{os.getpid()}")


def write(root: Path, contents: Contents, write_model: Callable[[Path], None]) -> Path:
    """Write a checkpoint below `root`; `write_model(folder)` adds the Hugging Face files. Returns its folder.

    Raises:
        CheckpointError: it could not be written (disk full, no permission); nothing half-written is left in view.
    """
    final = folder_of(root, contents.step)
    partial = partial_of(final)
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_model(partial)
        save_file(dict(contents.optimizer), partial / OPTIMIZER)
        _write_json(partial / STATE, {"step": contents.step, **contents.state})
        _open_as(partial / STATE, partial.glob("*.safetensors"))
        files = {
            path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        for name in files:
            force(partial / name)
        manifest = {
            "format_version": FORMAT_VERSION,
            "written_by": _written_by(),
            "step": contents.step,
            "score": contents.score,
            "files": files,
        }
        _write_json(partial / MANIFEST, manifest)
        force(partial / MANIFEST)
        force(partial)
        if final.exists():  # the same step again, after falling back behind it
            retired = root / f"{_REPLACED}{final.name}-{os.getpid()}"
            final.rename(retired)
            partial.rename(final)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            partial.rename(final)
        force(root)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"checkpoint {final} could not be written: {why}; those before it are untouched"
        ) from error
    return final


class Damaged(CheckpointError):
    """The bytes of a checkpoint are not those that were written, or were never all written."""


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None if every byte is as it was written.

    Raises:
        CheckpointError: it cannot be told: a file cannot be read at the moment (permission, input/output error, a
            network file system away), or another version of pmlm wrote it. It may be as good as ever.
    """
    try:
        manifest = read_manifest(folder)
    except Damaged as error:
        return str(error)
    return damage_of(folder, manifest["files"])


def damage_of(folder: Path, files: Mapping[str, Any]) -> str | None:
    """What is wrong with files of a folder, by their sizes and hashes in its manifest, or None.

    Raises:
        CheckpointError: one cannot be read at the moment.
    """
    for name, entry in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                return f"{name} has {size} bytes, not {entry['bytes']}"
            if sha256(path) != entry["sha256"]:
                return f"{name} is not as it was written (SHA-256 differs)"
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return f"{name} is missing"
        except OSError as error:
            raise _unreadable(path, error) from error
    return None


def read_manifest(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The hashes and score of a checkpoint, or those of another folder whose manifest of this form is called `name`.

    Raises:
        Damaged: it has none, or something else lies in its place.
        CheckpointError: it cannot be read at the moment, or is of another version.
    """
    path = folder / name
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Damaged(f"{folder} has no {name}: it was never finished") from None
    except ValueError as error:
        raise Damaged(f"{path} cannot be read: {error}") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    its = manifest.get("format_version") if isinstance(manifest, dict) else None
    if isinstance(its, int) and its != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {its}, this pmlm reads {FORMAT_VERSION}: go on with "
            f"{manifest.get('written_by', 'the pmlm that wrote it')}, or choose another run_name"
        )
    if its is None or not isinstance(manifest.get("files"), dict):
        raise Damaged(f"{path} is not the manifest of a checkpoint")
    if (outside := leads_outside(manifest["files"])) is not None:
        raise Damaged(f"{path} names a file {outside!r}, which is none of this folder")
    return manifest


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}. The checkpoint may be good: nothing was changed; "
        "mend the disk or the permissions and give the same command again"
    )


def read_state(folder: Path) -> dict[str, Any]:
    """The training state's JSON part."""
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE} cannot be read: {error}") from None


def read_optimizer(folder: Path) -> dict[str, Tensor]:
    """The optimizer's tensors, on the CPU."""
    return load_file(folder / OPTIMIZER)


def all_steps(root: Path) -> list[Path]:
    """Checkpoint folders below `root`, oldest first, damaged or not."""
    if not root.is_dir():
        return []
    found = [(step, path) for path in root.iterdir() if (step := step_of(path.name)) is not None]
    return [path for _, path in sorted(found)]


def newest_valid(root: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose every byte is right, or None if none was ever finished.

    Damaged ones are told to `say` and renamed `damaged-...`, so that they are neither taken nor lost.

    Raises:
        CheckpointError: one cannot be read at the moment or is of another version (see `damage`; it is left alone).
        Damaged: there are checkpoints and none is whole: to start over then is for the user to decide, not for us.
    """
    for folder in reversed(all_steps(root)):
        reason = damage(folder)
        if reason is None:
            return folder
        aside = root / f"{_DAMAGED}{folder.name}"
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        say(f"checkpoint {folder.name} is damaged ({reason}); kept as {aside.name}, going back to the one before it")
    if root.is_dir() and any(path.name.startswith(_DAMAGED) for path in root.iterdir()):
        raise Damaged(
            f"no checkpoint of this run is whole; the damaged ones are kept in {root} as {_DAMAGED}step-... . Put a "
            "good copy back there, or remove them to start over from step 0, or choose another run_name"
        )
    return None


def sweep(root: Path) -> None:
    """Tidy up after a kill. Only one process may write below `root` at a time.

    What an interrupted `write` left is removed; a checkpoint taken away for one that then never came, is put back.
    """
    if not root.is_dir():
        return
    for path in list(root.iterdir()):
        if path.name.startswith(_REPLACED):
            final = root / path.name.removeprefix(_REPLACED).rpartition("-")[0]
            if not final.exists():
                path.rename(final)
                continue
        if path.name.startswith((_WRITING, _REPLACED, _PRUNED)):
            shutil.rmtree(path, ignore_errors=True)


def best(root: Path) -> Path | None:
    """The checkpoint with the lowest held-out loss, if any was scored."""
    scored = [(score, folder) for folder in all_steps(root) if (score := _score(folder)) is not None]
    return min(scored)[1] if scored else None


def prune(root: Path, keep: int) -> None:
    """Remove all checkpoints but the `keep` newest and the best."""
    folders = all_steps(root)
    stay = {*folders[-keep:], best(root)}
    for folder in folders:
        if folder not in stay:
            # Renamed first: a half-removed folder must not look like a checkpoint.
            doomed = root / f"{_PRUNED}{folder.name}-{os.getpid()}"
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written_by() -> str:
    try:
        return f"pmlm {version('pmlm')}"
    except PackageNotFoundError:  # run from a source tree
        return "the pmlm that wrote it"


def _score(folder: Path) -> float | None:
    try:
        return read_manifest(folder).get("score")
    except CheckpointError:
        return None


def _open_as(ordinary: Path, files: Iterable[Path]) -> None:
    """Give files the mode of an ordinary one: safetensors lets nobody but the owner read, whatever the umask says."""
    mode = ordinary.stat().st_mode & 0o777
    for path in files:
        path.chmod(mode)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
