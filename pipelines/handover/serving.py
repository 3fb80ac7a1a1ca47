"""Keepers started and ended, and whether a node needs one: it does not where it sees the folder itself."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.handover.files import NAMESPACE
from pipelines.handover.keeper import Keeper
from pipelines.handover.links import led_to
from pmlm_core.addresses import is_remote

KEEPER = "keeper"
"""Under this name workers are told of their keeper, or of none."""
_NAME = "keeper-"
_LEFT = (f".{_NAME}*", "leaving-*", "failure-*")  # marks of keepers, and what `RunDir` names for one attempt
_AT_A_TIME = 16


def start_keeper(writes: list[str], reads: list[str]) -> str:
    """Start a keeper on this machine, which ends with this process; returns its name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"{_NAME}{uuid.uuid4().hex[:12]}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "max_concurrency": _AT_A_TIME, "max_restarts": -1}
    actor = ray.remote(Keeper).options(**options, scheduling_strategy=here).remote(writes, reads)
    _kept[name] = actor  # Ray ends an actor to which nobody refers
    return name


def end_keeper(name: str) -> None:
    """End a keeper; nothing if Ray has ended already."""
    import ray

    actor = _kept.pop(name, None)
    if actor is not None and ray.is_initialized():
        ray.kill(actor)


_kept: dict[str, Any] = {}


@contextmanager
def kept_folders(writes: Sequence[Path], reads: Sequence[str], *, wanted: bool) -> Iterator[str | None]:
    """A keeper for the time of the block, where work may run on other machines; None where it cannot.

    What commands that were killed have left in the folders, of which this command is the only one to use them, goes.

    Args:
        wanted: whether it may.
        writes: folders that processes there may write to.
        reads: what they may be sent besides, with what links in it lead to; addresses of stores among it are for
            themselves to ask.
    """
    for left in (left for path in writes for name in _LEFT for left in path.glob(name)):
        left.unlink(missing_ok=True)
    if not wanted:
        yield None
        return
    written, read = [str(path) for path in writes], [path for path in reads if not is_remote(path)]
    keeper = start_keeper(written, [*read, *led_to(read, but_in=written)])
    marks = [_mark(path, keeper) for path in writes]
    for mark in marks:
        with suppress(OSError):  # a full disk: processes of this machine then ask the keeper as well
            mark.touch()
    try:
        yield keeper
    finally:
        end_keeper(keeper)
        for mark in marks:
            mark.unlink(missing_ok=True)


def sees(folder: Path, keeper: str | None) -> bool:
    """Whether this machine sees a folder in or below which a keeper writes, not one of its own of the same name."""
    return keeper is None or any(_mark(each, keeper).exists() for each in (folder, *folder.parents[:2]))


def _mark(folder: Path, keeper: str) -> Path:
    return folder / f".{keeper}"
