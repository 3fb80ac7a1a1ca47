"""Names of what is not there, refused before a command imports what takes seconds.

Only this machine is asked; what lies in a store is looked for by the command itself.
"""

import os

from pmlm_core.addresses import absolute, is_remote
from pmlm_core.errors import NotThereError


def check_folder(option: str, path: str, way_out: str) -> None:
    """Refuse a folder that is not there.

    Raises:
        NotThereError: it is not, or is a file.
    """
    if not is_remote(path) and not os.path.isdir(absolute(path)):
        raise NotThereError(f"{option} {path} is no folder; {way_out}")


def check_exists(option: str, path: str) -> None:
    """Refuse a file or folder that is not there.

    Raises:
        NotThereError: it is not.
    """
    if not is_remote(path) and not os.path.exists(absolute(path)):
        raise NotThereError(f"{option} {path}: no such file or folder; check the path")
