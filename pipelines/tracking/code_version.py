"""Which code made a result: the package's version and, in a clone, the commit."""

import os
import subprocess
from pathlib import Path

import pmlm_core

COMMIT_VARIABLE = "PMLM_COMMIT"
"""Environment variable with the commit of code that was sent to a cluster without its history."""


def code_version() -> dict[str, str]:
    """Return `{"version": ..., "commit": ...}`; `commit` in a git clone or where `pmlm submit` sent one.

    It ends in "+changes" if files differ.
    """
    found = {"version": pmlm_core.__version__}
    root = Path(pmlm_core.__file__).resolve().parent.parent
    if not (root / ".git").exists():  # installed somewhere: a repository further up would be another project's
        return found | ({"commit": sent} if (sent := os.environ.get(COMMIT_VARIABLE)) else {})
    commit = _git(root, "rev-parse", "HEAD")
    if commit:
        found["commit"] = commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    return found


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
