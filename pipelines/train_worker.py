"""What a worker process does that `train_group.fit` has Ray Train start: train, and say what went wrong."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from pipelines.handover.outpost import Outpost, opened
from pipelines.leaving import Left, Request, was_told
from pipelines.run_folder import Events, RunDir
from pipelines.team import Team
from pmlm_core.errors import NotFinite, PmlmError


def work_in(
    run: RunDir,
    attempt: str,
    train: Callable[[RunDir, Team], None],
    keeper: str | None,
    ending: Collection[str] = (),
) -> None:
    """What a worker process of `fit` does: call `train`, and write down what a restart would not mend.

    Args:
        train: given the folder to work in, which is the run's or, on a machine that does not see it, stands in for it.
        keeper: as told by `fit`.
        ending: files of which one says that training is over, and checkpoints are wanted no more.
    """
    import ray.train
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of writing checkpoints
    context = ray.train.get_context()
    rank = context.get_world_rank()
    place = ray.util.get_current_placement_group()
    group = "" if place is None else place.id.hex()
    with opened(run, attempt, rank == 0, keeper, ending, group) as post:
        run = post.run
        request = Request(run.leaving_of(attempt))
        team = Team(
            rank,
            context.get_world_size(),
            report=lambda figures: ray.train.report(dict(figures)),
            told=lambda: was_told() or (rank == 0 and request.is_asked()),
            draining=lambda: getattr(ray.train, "get_preemption_info", _none)() is not None,
            flush=post.flush,
        )
        held = {"placement_group": group} if group else {}
        Events(run).add("worker", rank=team.rank, pid=os.getpid(), host=socket.gethostname(), **held)
        failure = run.failure_of(attempt)
        if failure.exists():
            return
        if team.leads:
            request.tell_begun()
        try:
            train(run, team)
            post.deliver()
        except Left:
            if team.leads:
                request.tell_left()
            post.flush()
        except NotFinite as error:
            # Every worker is here: none waits for another, so there is nothing to restart if the driver can be told.
            if not _tell_failure(post, failure, error):
                raise
        except PmlmError as error:
            _tell_failure(post, failure, error)
            raise


def _none() -> None:
    """For a Ray that does not tell."""


def _tell_failure(post: Outpost, path: Path, error: Exception) -> bool:
    """Whether the driver can find the error; that of a worker that was given up is not told."""
    try:
        if not (post.counts() and _write_failure(path, error)):
            return False
        post.flush()
    except OSError:
        return False
    return True


def _write_failure(path: Path, error: Exception) -> bool:
    """Whether the error is now, or was before, where the driver finds it; on a full disk it is not."""
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"error": type(error).__name__, "message": str(error)}, file)
    except FileExistsError:
        pass  # another worker met the same error first
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return False
    return True
