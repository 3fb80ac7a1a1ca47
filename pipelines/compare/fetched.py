"""Runs that lie in a store and are not worked on here: their small files, fetched for a comparison to read."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pipelines.console import counted, say
from pipelines.finetune.rundir import MODEL
from pipelines.tracking.redact import redact
from pipelines.upload.finished import MANIFEST
from pipelines.upload.lease import NOTE
from pmlm_core import storage
from pmlm_core.errors import ConfigError

_NOT_READ = frozenset({MODEL, "features", "checkpoints", "predictions", "tune", "ray", "mlruns", "tensors"})
_ABOVE = 3
"""Folders above a run tell what it is part of: SWEEP/BENCHMARK/trials."""
_AT_ONCE = 16


def fetch(address: str, scratch: Path) -> tuple[Path, frozenset[Path]]:
    """Fetch what the runs at `address` and below say of themselves: options, figures, scores, what is paired.

    Args:
        scratch: folder of this machine to put it in.

    Returns:
        The folder that stands for the address, with its name and those above it; and the folders of models, which stay
        in the store.

    Raises:
        ConfigError: there is nothing.
        OSError, DataError: the store cannot be reached, or refuses.
    """
    sizes = storage.files_below(address)
    if not sizes:
        raise ConfigError(f"folders: there is nothing at {redact(address)}; name run folders, or the ones they lie in")
    top = scratch.joinpath(*PurePosixPath(address.split("://")[1].split("?")[0]).parts[-_ABOVE:])
    names = list(_to_be_read(sizes))
    say(f"fetching {counted(len(names), 'file')} ({sum(sizes[name] for name in names) / 1e6:.1f} MB) of the runs at "
        f"{redact(address)}")  # fmt: skip
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: storage.fetch_file(storage.join(address, name), top / name), names))
    holding = {PurePosixPath(name).parent for name in sizes}
    return top, frozenset(top / folder for folder in holding if folder.name == MODEL)


def _to_be_read(sizes: Mapping[str, int]) -> Iterator[str]:
    for name in sizes:
        path = PurePosixPath(name)
        told = path.suffix in (".json", ".jsonl") and path.name not in (MANIFEST, NOTE)
        if told and _NOT_READ.isdisjoint(path.parts[:-1]):
            yield name
