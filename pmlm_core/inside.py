"""Check of file names that are read from a manifest of elsewhere: none may lead out of the manifest's folder."""

import re
from collections.abc import Iterable

# No "..", no leading "/" or "~", no "\\", and no "?", which begins the settings of a store in an address.
_NAME = re.compile(r"[\w.+=@-][\w.+=@ -]*(/[\w.+=@-][\w.+=@ -]*)*")


def leads_outside(names: Iterable[object]) -> object | None:
    """The first of `names` that is no plain path below a folder, None if all are.

    >>> leads_outside(["model.safetensors", "train/a-1.arrow"]), leads_outside(["a", "b/../../.ssh/id_rsa"])
    (None, 'b/../../.ssh/id_rsa')
    """
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or {".", ".."} & set(name.split("/")):
            return name if name is not None else "null"
    return None
