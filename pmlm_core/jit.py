"""Loops compiled by numba, kept between processes for as long as nothing that they are made of has changed.

numba itself looks at the file of a loop alone: after a change to a function that the loop calls, or to a constant that
it names, in another file, it would go on with the machine code of before. Here what is kept lies in a folder named by
the content of the whole package.
"""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from pmlm_core.addresses import cache_folder
from pmlm_core.sources import fingerprint

_ROOT = Path(__file__).parent
_VERSIONS_KEPT = 20
_decorating = threading.Lock()


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with `cache=True`, in a folder of this package's content; compiled anew in each process without one.

    The folder is made where `NUMBA_CACHE_DIR` says, else beside the source, else in the folder for what can be made
    again (`addresses.cache_folder`): the first of them that may be written to.
    """

    def compiled(loop: Callable[..., Any]) -> Any:
        folder = _folder()
        if folder is None:
            return numba.njit(**options)(loop)
        with _decorating:
            given = numba.config.CACHE_DIR  # type: ignore[attr-defined]
            numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
            try:
                # Where to keep it is settled here, not at the first call.
                return numba.njit(cache=True, **options)(loop)
            finally:
                numba.config.CACHE_DIR = given  # type: ignore[attr-defined]

    return compiled


@cache
def _folder() -> str | None:
    """Where this process keeps machine code; None if it may keep none. Those of other versions go, but for the last."""
    given = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    places = [*([Path(given)] if given else []), _ROOT / "__pycache__", cache_folder("loops")]
    for place in places if _DIGEST else ():
        folder = place / f"loops-{_DIGEST}"
        with contextlib.suppress(OSError):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)  # another process may make it too
                _clear(place)
            tempfile.TemporaryFile(dir=folder).close()
            return str(folder)
    return None


def _clear(place: Path) -> None:
    for old in sorted(place.glob("loops-*"), key=lambda each: each.stat().st_mtime)[:-_VERSIONS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


# Now, not when a loop is met: what was imported by then may have been edited meanwhile.
_DIGEST = fingerprint(_ROOT)[:16]
