"""Small files in published forms, and reading them."""

from pathlib import Path
from typing import Any

from pmlm_core.tasks.base import BadRow, Task


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(task: Task, folder: Path | str, split: str) -> tuple[list[Any], list[BadRow]]:
    """Examples and bad rows, each in order."""
    found = list(task.read(str(folder), split))
    return [x for x in found if not isinstance(x, BadRow)], [x for x in found if isinstance(x, BadRow)]
