"""A command's relative paths: in a job they lie in a copy of this folder, which Ray makes and removes again."""

import glob
from pathlib import Path
from typing import Any

from pipelines.inner_command import parse
from pipelines.options import Request
from pipelines.tracking.redact import redact
from pipelines.tracking.store import sqlite_file
from pmlm_core import storage
from pmlm_core.errors import ConfigError

NEVER = ("submit",)
PURPOSE = "run as a job"
_WRITTEN = ("output_dir", "upload_dir", "cache_dir", "json", "run_dir", "paths")
_READ = ("inputs", "data_dir", "tokenizer", "model", "init_checkpoint", "recipe", "benchmark", "folders")


def files_named(stage: str, request: Request, root: Path) -> list[str]:
    """Files and folders of `root` that the command reads by a relative path, relative to it.

    Raises:
        ConfigError: it would write to a relative path, or reads one that is not here.
    """
    config, named = request.config, []
    if request.recipe is not None and not Path(request.recipe).is_absolute():
        named.append(_inside(request.recipe, "config", root))
    for option in _WRITTEN:
        for path in _values(config, option):
            if _is_relative(path):
                raise ConfigError(
                    f"pmlm {stage}: {option} {path} is relative, which in a job is a folder that Ray removes "
                    "afterwards; give an address where the option takes one (s3://, gs://), or the full path of a "
                    "folder on the nodes"
                )
    store = getattr(config, "tracking_uri", None)
    if store and (file := sqlite_file(store)) and not file.is_absolute():
        raise ConfigError(
            f"pmlm {stage}: tracking_uri {redact(store)} is a file of this folder, which in a job is a copy that Ray "
            "removes afterwards; give sqlite:////SHARED/FOLDER/FILE.db, or the address of an MLflow server"
        )
    for option in _READ:
        for path in _values(config, option):
            path = path.rpartition("=")[2] if option == "data_dir" else path
            if option == "benchmark" and not path.endswith(".py"):
                continue
            if _is_relative(path):
                named += _matches(path, f"{stage}: {option}", root)
    if stage == "doctor" and config.command:  # what it is asked about
        inner, asked = parse(config.command, purpose="be made ready for", never=("doctor", *NEVER))
        named += files_named(inner, asked, root)
    return named


def _values(config: Any, option: str) -> list[str]:
    value = getattr(config, option, None)
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str) and each]


def _is_relative(path: str) -> bool:
    return not storage.is_remote(path) and not Path(path.removeprefix("file://")).expanduser().is_absolute()


def _matches(path: str, option: str, root: Path) -> list[str]:
    found = glob.glob(path, root_dir=root, recursive=True)
    if not found:
        raise ConfigError(
            f"pmlm {option} {path} is relative, and there is no such file or folder in {root} to send; give the place "
            "where the nodes have it (s3://, gs://, a shared folder)"
        )
    return [_inside(each, option, root) for each in found]


def _inside(path: str, option: str, root: Path) -> str:
    relative = Path(path)
    if ".." in relative.parts:
        raise ConfigError(
            f"pmlm {option} {path} lies outside of {root}, and only this folder is sent; submit from above"
        )
    return relative.as_posix()
