"""Telling the user which files are left out before any is read."""

from collections.abc import Sequence

from pipelines.console import counted
from pmlm_core.corpus.rejects import REASONS
from pmlm_core.corpus.sources import LeftOut


def told_left_out(files: Sequence[LeftOut], shown: int = 3) -> str:
    """A sentence for each reason, with the first names of each."""
    lines = []
    for reason in dict.fromkeys(each.reason for each in files):
        names = [each.uri for each in files if each.reason == reason]
        listed = ", ".join(names[:shown]) + ", ..." * (len(names) > shown)
        lines.append(f"left out: {counted(len(names), 'file')} ({listed}): {REASONS[reason]}")
    return "\n".join(lines)
