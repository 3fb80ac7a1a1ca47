"""Checkpoints of a worker that does not see the run's folder: given to the driver, and fetched from there."""

from collections.abc import Callable
from pathlib import Path

from pipelines.lock import locked
from pipelines.run_folder import RunDir
from pipelines.team import Team
from pipelines.upload.background import short
from pipelines.upload.checkpoints import fetch, mirror, take
from pmlm_core.errors import CheckpointError, DataError
from pmlm_core.training import checkpoint

_FETCHING_S = 3600.0


def hand_over(run: RunDir, team: Team, keep: int, warn: Callable[[str], None], *, best_first: bool = False) -> None:
    """Give the driver the newest checkpoints of a run whose folder a worker's own stands in for; else nothing.

    The figures of the steps before go first: who goes on from the checkpoint does not compute them again.

    Raises:
        CheckpointError: they did not get there.
    """
    if run.home is None:
        return
    try:
        team.flush()
        mirror(run, run.home, keep, warn, beside=(), best_first=best_first)
    except (OSError, DataError) as error:
        raise CheckpointError(f"the checkpoint did not get to the machine of the command: {short(error)}") from error


def starting(
    run: RunDir,
    team: Team,
    say: Callable[[str], None],
    needs: Callable[[Path], str | None] = lambda folder: None,
) -> Path | None:
    """The newest good checkpoint, chosen by rank 0, in the folder where each rank works; None if there is none yet.

    Args:
        say: told of damaged ones.
        needs: see `fetch`.

    Raises:
        CheckpointError: there are some and none is whole.
    """
    newest = None
    if team.leads:
        checkpoint.sweep(run.checkpoints)
        try:
            newest = checkpoint.newest_valid(run.checkpoints, say)
        except checkpoint.Damaged:
            if run.home is None:
                raise
        if run.home is not None:
            newest = fetch(run, run.home, newest, lambda text: None, beside=(), needs=needs)
    name = team.agree(None if newest is None else newest.name)
    return None if name is None else present(run, name)


def present(run: RunDir, name: str) -> Path:
    """A checkpoint's folder where this rank works; from the driver, if it is not there yet.

    Raises:
        CheckpointError: what came is not whole.
    """
    folder = run.checkpoints / name
    if run.home is not None and not folder.exists():
        with locked(run.checkpoints, "fetching a checkpoint", wait=_FETCHING_S):
            reason = None if folder.exists() else take(run, run.home, name, ())
        if reason is not None:
            raise CheckpointError(f"{name} did not come whole from the machine of the command: {reason}")
    return folder
