"""Finding a task's files: official names first, then variants; a missing file is an error that lists what was sought.

A folder may be local, in an object store, or a data set on the Hugging Face hub: `hf://nyu-mll/glue` (with
`@revision` if wanted), of which only the files of the split are fetched, into the hub's own cache.
"""

import fnmatch
import os
import posixpath
from collections.abc import Sequence

from pmlm_core import storage
from pmlm_core.errors import ConfigError, DataError, NotThereError

HUB = "hf://"
_COMPRESSIONS = (".gz", ".zst", ".bz2", ".lz4")
TRAIN, DEV, TEST = ("train",), ("dev", "validation", "valid", "val"), ("test",)
SPLIT_NAMES = {"train": TRAIN, "dev": DEV, "test": TEST}


class NoFile(NotThereError):
    """No file is there for a split."""


def form(uri: str) -> str:
    """The suffix that tells a file's form, compression aside.

    >>> form("a/train.sample.tsv.gz"), form("README")
    ('.tsv', '')
    """
    path = storage.split_query(uri)[0]
    for compression in _COMPRESSIONS:
        path = path.removesuffix(compression)
    return posixpath.splitext(path)[1].lower()


def folder_of(uri: str) -> str:
    """The folder a file is in.

    >>> folder_of("s3://bucket/glue/dev.tsv?scheme=http")
    's3://bucket/glue?scheme=http'
    """
    path, query = storage.split_query(uri)
    return storage.with_query(path.rpartition("/")[0], query)


def name_patterns(stems: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Patterns for a split's file, likeliest first: `dev.tsv`, `dev.sample.tsv`, Parquet as the hub ships it.

    Args:
        stems: names of the split, "dev" or "squad.dev".
        suffixes: forms with their dot. Two forms of one name are ambiguous, so they stand in one pattern.
    """
    patterns = []
    for stem in stems:
        for middle in ("", ".sample"):
            names = [f"{stem}{middle}{suffix}" for suffix in suffixes]
            patterns.append("|".join([*names, *(name + packed for name in names for packed in _COMPRESSIONS)]))
        if ".parquet" in suffixes:
            patterns += [f"{stem}-*.parquet", f"{stem}/*.parquet"]
    return patterns


def find_files(
    data_dir: str, patterns: Sequence[str], *, what: str, folders: Sequence[str] = ("",), several: bool = False
) -> list[str]:
    """Find the files of one split.

    Args:
        data_dir: local folder, s3://, gs:// or hf://.
        patterns: shell patterns in order of preference, perhaps with folders; `|` joins patterns of equal rank. The
            first that fits anything decides.
        what: "split 'dev' of task 'rte'", for messages.
        folders: places under `data_dir` to look in, in order.
        several: whether several files of any form may be meant; otherwise only Parquet comes in parts.

    Raises:
        NoFile: nothing fits, listing what was looked for.
        DataError: several files do.
    """
    origin = data_dir
    if data_dir.startswith(HUB):
        wanted = [
            posixpath.join(folder, name) for folder in folders for pattern in patterns for name in pattern.split("|")
        ]
        data_dir = _fetch(data_dir, wanted)
    names_of: dict[str, list[str]] = {}
    for folder in folders:
        for pattern in patterns:
            found = []
            for each in pattern.split("|"):
                path, query = storage.split_query(each)
                below, name = posixpath.split(path)
                if below and (os.path.isabs(below) or storage.is_remote(below)):
                    place = storage.with_query(below, query)
                else:
                    place = storage.join(data_dir, *(part for part in (folder, below) if part))
                if place not in names_of:
                    names_of[place] = list(storage.names_in(place))
                found += [storage.join(place, each) for each in fnmatch.filter(names_of[place], name)]
            found = list(dict.fromkeys(found))
            if len(found) > 1 and not several and any(form(file) != ".parquet" for file in found):
                raise DataError(f"{what}: several files fit: {', '.join(found)}; keep one, or name the file to read")
            if found:
                return found
    looked = ", ".join(name for pattern in patterns for name in pattern.split("|") if not name.endswith(_COMPRESSIONS))
    places = ", ".join(storage.join(origin, folder) if folder else origin for folder in folders)
    raise NoFile(f"no file for {what}: looked for {looked} in {places}; see that --data_dir names the right folder")


def _fetch(data_dir: str, patterns: list[str]) -> str:
    """Bring the files of a hub data set that fit `patterns` into the local cache and give their folder."""
    repository, _, revision = data_dir.removeprefix(HUB).strip("/").partition("@")
    if not repository:
        raise ConfigError(f"{data_dir}: name a data set after hf://, as in hf://nyu-mll/glue")
    from huggingface_hub import snapshot_download  # not at the top: takes a second

    try:
        return str(
            snapshot_download(
                repository, repo_type="dataset", revision=revision or None, allow_patterns=patterns, max_workers=2
            )
        )
    except Exception as error:  # the client raises errors of several libraries: requests', httpx's, its own
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{data_dir}: the hub did not give this data set ({type(error).__name__}: {reason}); "
            "download it elsewhere and give its folder as --data_dir"
        ) from None
