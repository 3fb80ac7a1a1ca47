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


def beside(folder: str, name: str) -> str:
    """Another folder next to this one, for the command that comes next; in a bucket that is this one.

    >>> beside("outputs/mine/tokenizer", "blocks"), beside("tokenizer", "blocks")
    ('outputs/mine/blocks', 'blocks')
    >>> beside("s3://bucket/tokenizer", "blocks"), beside("s3://bucket", "blocks")
    ('s3://bucket/blocks', 's3://bucket/blocks')
    """
    path, query = storage.split_query(folder) if storage.is_remote(folder) else (folder, "")
    parent, slash, _ = path.rstrip("/").rpartition("/")
    if parent.endswith(":/"):
        return storage.join(folder, name)
    return storage.with_query(f"{parent}{slash}{name}", query)
