"""Loops compiled by numba, kept between processes for as long as nothing that they are made of has changed.

numba itself looks at the file of a loop alone: after a change to a function that the loop calls, or to a constant that
it names, in another file, it would go on with the machine code of before. Here what is kept lies in a folder named by
the content of that file and of all of ours that it imports, and what they import.
"""

import ast
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from pmlm_core.addresses import cache_folder

_ROOT = Path(__file__).parent


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with `cache=True`, whose cache also knows the other files of a loop.

    It lies beside the source where that may be written, else in the folder for what can be made again
    (`addresses.cache_folder`); `NUMBA_CACHE_DIR` decides otherwise.
    """

    def compiled(loop: Callable[..., Any]) -> Any:
        given = numba.config.CACHE_DIR  # type: ignore[attr-defined]
        kept_in = f"loops-{digest(Path(loop.__code__.co_filename))}"
        numba.config.CACHE_DIR = os.path.join(given or _beside(), kept_in)  # type: ignore[attr-defined]
        try:
            return numba.njit(cache=True, **options)(loop)  # where to keep it is settled here, not at the first call
        finally:
            numba.config.CACHE_DIR = given  # type: ignore[attr-defined]

    return compiled


@cache
def digest(file: Path) -> str:
    """Of the content of a file of this package and of all that it imports from this package, directly or not."""
    found, waiting = {file}, [file]
    while waiting:
        new = _imported(waiting.pop()) - found
        found |= new
        waiting += new
    contents = hashlib.sha256()
    for each in sorted(found):
        contents.update(hashlib.sha256(each.read_bytes()).digest())
    return contents.hexdigest()[:16]


@cache
def _imported(file: Path) -> frozenset[Path]:
    """The files of this package that `file` imports."""
    names = set[str]()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update([node.module, *(f"{node.module}.{each.name}" for each in node.names)])
    ours = [name.split(".") for name in names if name.split(".")[0] == _ROOT.name]
    places = [_ROOT.parent.joinpath(*parts) for parts in ours]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return frozenset(file for file in files if file.is_file())


def _beside() -> str:
    return str(_ROOT / "__pycache__") if os.access(_ROOT, os.W_OK) else str(cache_folder("loops"))
