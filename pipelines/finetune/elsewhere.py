"""A fine-tuning job on a machine that may not see the driver's files: what is missing is fetched from there."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.finetune.features import MANIFEST, Drafts
from pipelines.finetune.job import Job, Part
from pipelines.finetune.source import Source, open_source
from pipelines.handover.files import address
from pipelines.handover.serving import sees
from pipelines.model_here import local_copy
from pmlm_core import storage
from pmlm_core.addresses import cache_folder
from pmlm_core.errors import PmlmError

_FILES = ("train_file", "validation_file", "test_file")
NOBODY = "-"
"""Who asks: nothing is held."""


def read_by(job: Job) -> tuple[str, ...]:
    """Folders of this machine that a worker on another one may need."""
    parts = (job.train, *([job.choose] if job.choose else []), *job.final)
    features = {os.path.dirname(part.features) for part in parts if part.features}
    return (
        job.config.data_dir,
        job.source.path,
        *sorted({str(job.cache_dir), *features, *folders_of(job.config.task_options())}),
    )


def there(path: str, keeper: str) -> str:
    """What a machine that does not see the driver's disk calls a file or folder there; an address stays what it is.

    Whatever lies here under that path may be something else.
    """
    return path if "://" in path else address(keeper, NOBODY, path)


def files_there(options: Mapping[str, Any], keeper: str) -> dict[str, Any]:
    """Those among options that name a file of one's own by its full path, as `there` names it."""
    return {name: there(options[name], keeper) for name in _FILES if _is_full_path(options.get(name))}


def folders_of(options: Mapping[str, Any]) -> list[str]:
    """Where such files lie."""
    return [os.path.dirname(options[name]) for name in _FILES if _is_full_path(options.get(name))]


def _is_full_path(path: str | None) -> bool:
    return path is not None and os.path.isabs(path)


def job_here(job: Job, keeper: str | None) -> Job:
    """The job with paths of this machine for checkpoint, features and cache, and an address for data it does not have.

    Args:
        keeper: of the driver's machine; None where every worker sees its folders.
    """
    job = replace(job, source=job.source.here())
    if keeper is None or sees(job.run.path, keeper):
        return job
    data_dir = there(job.config.data_dir, keeper)
    files = files_there(job.config.task_options(), keeper)

    def here(part: Part) -> Part:
        return replace(part, features=_features_here(part.features, keeper))

    return replace(
        job,
        config=replace(job.config, data_dir=data_dir, cache_dir=str(cache_folder("features")), **files),
        source=_source_here(job.source, keeper),
        train=here(job.train),
        choose=job.choose and here(job.choose),
        final=tuple(here(part) for part in job.final),
    )


def _source_here(source: Source, keeper: str) -> Source:
    if source.uri is not None and storage.is_remote(source.uri):
        return source
    with suppress(PmlmError, OSError):
        if open_source(source.path).sha256 == source.sha256:
            return source
    fetched = local_copy(there(source.path, keeper), known_as=source.sha256)
    return replace(source, path=fetched, uri=source.uri or source.path)


def _features_here(folder: str, keeper: str) -> str:
    """Named by all that decides them, so that what is found under the name is what was meant."""
    if os.path.isfile(os.path.join(folder, MANIFEST)):
        return folder
    final = cache_folder("features") / Path(folder).name
    if not (final / MANIFEST).is_file():
        drafts = Drafts(final)
        source = there(folder, keeper)
        try:
            for name in storage.names_in(source):
                storage.fetch_file(storage.join(source, name), drafts.path / name)
            drafts.settle()
        except BaseException:
            drafts.discard()
            raise
    return str(final)
