"""The checkpoint that a run starts from: where it lies, and which it is, told by what it holds and not by its path."""

import hashlib
import json
import os
from pathlib import Path

from pipelines.model_here import local_copy
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.rundir import Start
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, NotThereError
from pmlm_core.model.foreign import check_ours
from pmlm_core.training import checkpoint


def start_of(config: PretrainConfig) -> Start | None:
    """What `init_checkpoint` names at the moment, None if the run begins with fresh weights.

    Raises:
        NotThereError: it is no checkpoint folder.
        CheckpointError: what it holds cannot be told.
        OSError: its store failed again and again.
    """
    if config.init_checkpoint is None:
        return None
    path = storage.normalise(config.init_checkpoint)
    if storage.size(storage.join(path, "config.json")) is None:
        raise NotThereError(f"init_checkpoint {path} is no checkpoint folder: it has no config.json")
    check_ours(storage.read_bytes(storage.join(path, "config.json")), path, "init_checkpoint")
    # Its own link only (OUTPUT_DIR/final): the folders above it may go by other names on other machines.
    while os.path.islink(path):
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return Start(path, digest_of(path))


def digest_of(folder: str) -> str:
    """SHA-256 (hex) that stands for configuration and weights; by the checkpoint's manifest, if it has one.

    Raises:
        CheckpointError: its manifest cannot be read.
    """
    manifest = storage.read_if_there(storage.join(folder, checkpoint.MANIFEST))
    if manifest is None:
        here = Path(local_copy(folder))
        found = {path.name: checkpoint.sha256(path) for path in here.iterdir() if _decides(path.name)}
    else:
        try:
            written = json.loads(manifest)["files"]
            found = {name: written[name]["sha256"] for name in written if _decides(name)}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"init_checkpoint {folder} is damaged: {checkpoint.MANIFEST} cannot be read ({error!r}). "
                "Take another, or a good copy of it"
            ) from None
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _decides(name: str) -> bool:
    """Whether the model depends on a file of this name; its tokenizer is compared with that of the blocks."""
    return name == "config.json" or (".safetensors" in name and name != checkpoint.OPTIMIZER)
