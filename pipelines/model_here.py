"""A checkpoint that lies in an object store, on this machine's disk: fetched once a machine, checked, found again.

It goes to `PMLM_CACHE` (by default ~/.cache/pmlm), where many trials and workers of a machine share it.
"""

import hashlib
import json
import shutil
from pathlib import Path

from pipelines.console import say
from pipelines.lock import locked
from pipelines.quantities import size_text
from pmlm_core import storage
from pmlm_core.addresses import cache_folder
from pmlm_core.errors import CheckpointError, ConfigError
from pmlm_core.training import checkpoint

_PATIENCE_S = 3600.0


def local_copy(model: str, *, known_as: str | None = None) -> str:
    """The folder of a checkpoint on this machine; one that is no address of a store is returned as it is.

    Args:
        known_as: names it if the address does not, which may be another one the next time.

    Raises:
        ConfigError: there is nothing at that address.
        CheckpointError: what was fetched is not what was written there.
        OSError: the store failed again and again.
    """
    if not storage.is_remote(model):
        return model
    names = list(storage.names_in(model))
    if "config.json" not in names:
        raise ConfigError(f"model {model}: there is no checkpoint (no config.json); name a folder that holds one")
    manifest = storage.read_bytes(storage.join(model, checkpoint.MANIFEST)) if checkpoint.MANIFEST in names else b""
    wanted = [name for name in names if name not in checkpoint.TRAINING_FILES]
    sizes = {name: storage.size(storage.join(model, name)) for name in wanted}
    # Without a manifest, other weights of the same sizes are told by their time.
    times = [] if manifest else [storage.changed_at(storage.join(model, name)) for name in wanted]
    key = hashlib.sha256(json.dumps([known_as or model, sizes, *times]).encode() + manifest).hexdigest()[:24]
    folder = cache_folder("models")
    target = folder / key
    waiting = folder / f".{key}"
    waiting.mkdir(parents=True, exist_ok=True)
    with locked(waiting, "fetching a model", wait=_PATIENCE_S):
        if not target.is_dir():
            say(f"fetching model {model} ({size_text(sum(size or 0 for size in sizes.values()))})")
            _fetch(model, wanted, manifest, target)
    return str(target)


def _fetch(model: str, names: list[str], manifest: bytes, target: Path) -> None:
    """Fetch every file beside `target` and give the folder its name when all are there and right."""
    draft = target.with_name(f".draft-{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    written = json.loads(manifest)["files"] if manifest else {}
    for name in names:
        path = draft / name
        storage.fetch_file(storage.join(model, name), path)
        if name in written and checkpoint.sha256(path) != written[name]["sha256"]:
            shutil.rmtree(draft)
            raise CheckpointError(f"model {model} is damaged: {name} is not as it was written")
    draft.rename(target)
