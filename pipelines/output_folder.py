"""Checking, before hours of work, that a folder can be made and written to at the end of them."""

import os

from pmlm_core import storage
from pmlm_core.errors import ConfigError


def check_output_dir(output_dir: str) -> None:
    """Refuse an output folder that cannot be one; nothing is made.

    Raises:
        ConfigError: it or a folder above it is a file, or may not be written to.
    """
    if storage.size(output_dir) is not None:
        raise ConfigError(f"output_dir {output_dir} is a file; name a folder")
    if storage.is_remote(output_dir):
        return
    above = storage.absolute(output_dir)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise ConfigError(f"output_dir {output_dir}: {above} is not a folder; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"output_dir {output_dir}: {above} may not be written to; name another place")


def check_run_place(output_dir: str, run_name: str | None, more: str = "") -> None:
    """Refuse a place that a run cannot have; nothing is looked at.

    Args:
        more: another way out, for the message.

    Raises:
        ConfigError: output_dir is no folder, or run_name not the name of one.
    """
    if "://" in output_dir:
        raise ConfigError(
            f"output_dir {output_dir} must be a folder (on several machines a shared one, such as NFS): "
            f"checkpoints are renamed into place, which object stores cannot do{more}"
        )
    if run_name is not None and (not run_name or run_name != run_name.strip(". ") or "/" in run_name):
        raise ConfigError(f"run_name '{run_name}' must be a plain folder name, without '/'")


def beside(folder: str, name: str) -> str:
    """Another folder next to this one, for the command that comes next.

    >>> beside("outputs/mine/tokenizer", "blocks"), beside("tokenizer", "blocks")
    ('outputs/mine/blocks', 'blocks')
    """
    parent, slash, _ = folder.rstrip("/").rpartition("/")
    return f"{parent}{slash}{name}"
