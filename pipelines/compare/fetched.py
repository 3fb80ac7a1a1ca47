"""Runs that lie in a store: what they say of themselves, fetched for a comparison to read."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.console import counted, say, warn
from pipelines.finetune.rundir import MODEL
from pipelines.run_folder import RUN_FILE
from pipelines.sweep.course import RESULT
from pipelines.sweep.trials import COST, ENDINGS, POINT
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pipelines.tracking.redact import redact
from pmlm_core import storage
from pmlm_core.addresses import join, split_query, with_query
from pmlm_core.errors import ConfigError
from pmlm_core.inside import leads_outside

_OF_THE_WHOLE = (RUN_FILE, MLFLOW_RECORD, RESULT)
_READ = frozenset({*_OF_THE_WHOLE, JOURNAL, POINT, COST, *ENDINGS})
_ABOVE = 2
"""Folders above a trial that tell what it is part of: BENCHMARK/trials."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Fetched:
    """Files of a store in a folder of this machine, under the names they have in their bucket.

    Attributes:
        bucket: its address.
        folder: what stands for the bucket.
        top: what stands for the folder that was asked for.
        models: what would stand for the folders of models, which stay in the store.
    """

    bucket: str
    folder: Path
    top: Path
    models: frozenset[Path]

    def address(self, path: Path) -> str:
        """Of what is, or would be, at a path in `folder`."""
        return join(self.bucket, *path.relative_to(self.folder).parts)


def fetch(address: str, folder: Path) -> Fetched:
    """Fetch options, figures and scores of the runs at `address` and below, and of the sweep that they are part of.

    Args:
        folder: on this machine, to put them in.

    Raises:
        ConfigError: there is nothing.
        OSError, DataError: the store cannot be reached, or refuses.
    """
    there = storage.files_below(address)
    if not there:
        raise ConfigError(f"folders: there is nothing at {redact(address)}; name run folders, or the ones they lie in")
    path, query = split_query(address)
    scheme, _, inside = path.partition("://")
    bucket, *parts = PurePosixPath(inside).parts
    top = folder.joinpath(*parts)
    holding = {PurePosixPath(name).parent for name in there if leads_outside([name]) is None}
    models = frozenset(top / each for each in holding if each.name == MODEL)
    found = Fetched(with_query(f"{scheme}://{bucket}", query), folder, top, models)
    of_runs = [name for name in there if name.rpartition("/")[2] in _READ and MODEL not in name.split("/")]
    wanted = [name for name in of_runs if leads_outside([name]) is None]
    if len(wanted) < len(of_runs):
        others = counted(len(of_runs) - len(wanted), "file")
        warn(f"{redact(address)}: {others} passed over, whose names cannot be those of a run")
    megabytes = sum(there[name] for name in wanted) / 1e6
    say(f"reading {counted(len(wanted), 'file')} ({megabytes:.1f} MB) at {redact(address)}")
    above = [found.top.parents[up] / name for up in range(min(_ABOVE, len(parts))) for name in _OF_THE_WHOLE]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda path: _fetch(found, path), [*above, *(found.top / name for name in wanted)]))
    return found


def _fetch(found: Fetched, path: Path) -> None:
    content = storage.read_if_there(found.address(path))
    if content is not None:  # there may be none above, and a sweep that goes on removes some
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
