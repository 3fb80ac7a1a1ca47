"""Workers started and restarted by Ray Train, for every stage that trains; and what went wrong in their own words.

An error that the user must mend would come again after every restart: the worker that meets it writes it into the run's
folder (train_worker.py), restarted workers of the same attempt end at once, and the driver raises it.
"""

import contextlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines import cluster
from pipelines.console import say, warn
from pipelines.handover.serving import KEEPER, kept_folders
from pipelines.in_background import run_in_background
from pipelines.leaving import Request, torch_config
from pipelines.run_folder import Events, RunDir
from pmlm_core import errors
from pmlm_core.errors import PmlmError, TrainingError


@dataclass(frozen=True)
class Group:
    """Which workers are to run, and in which run's folder.

    Attributes:
        attempt: names this start of the command; a worker group that Ray restarts is still the same attempt.
        threads: CPU threads of a worker.
        max_failures: how often lost workers may be replaced before there is another checkpoint; -1 for no limit.
        min_workers: with how many to start and go on while nodes are missing; None for num_workers.
        resize_minutes: how often to look whether more than those fit.
        reads: folders that workers on other machines may be sent files of.
        on_cluster: this process is one of a cluster's; to a command, RAY_ADDRESS says so.
    """

    run: RunDir
    attempt: str
    num_workers: int
    threads: int
    use_gpu: bool
    max_failures: int
    min_workers: int | None = None
    resize_minutes: float = 5.0
    reads: tuple[str, ...] = ()
    on_cluster: bool = False

    @property
    def fewest(self) -> int:
        """The workers without which nothing runs."""
        return self.min_workers or self.num_workers


def fit(
    group: Group,
    worker: Callable[[dict[str, Any]], None],
    told: dict[str, Any],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Run `worker(told)` in every process of the group until all have ended.

    Workers that leave because their machine will be taken away are started again elsewhere. At Ctrl-C or SIGTERM they
    are asked to leave after a checkpoint, and waited for.

    Args:
        meanwhile: called in this thread every half second while they run.

    Raises:
        PmlmError: what a worker met and a restart would not mend.
        TrainingError: workers were lost too often.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
    """
    needed = None if cluster.is_remote() else cluster.cpus_to_start(group.num_workers * group.threads)
    request = Request(group.run.leaving_of(group.attempt))
    try:
        with (
            cluster.connected(needed),
            kept_folders([group.run.path], group.reads, wanted=group.on_cluster or cluster.is_remote()) as keeper,
        ):
            told = {**told, KEEPER: keeper}
            counted = "num_workers" if group.min_workers is None else "min_workers"
            cluster.require(group.fewest, group.threads, group.use_gpu, counted=counted)
            for start in itertools.count():
                request.prepare()
                if _fit_once(group, start, worker, told, meanwhile, request):
                    break
    except KeyboardInterrupt:
        try:
            _raise_failure(group)
        except PmlmError as error:
            warn(f"the workers met an error: {error}")
        raise
    finally:
        request.remove()
    _raise_failure(group)


def _fit_once(
    group: Group,
    start: int,
    worker: Callable[[dict[str, Any]], None],
    told: dict[str, Any],
    meanwhile: Callable[[], None],
    request: Request,
) -> bool:
    """Whether the workers have ended for good; if not, they are to be started again."""
    before = _checkpoints_reached(group.run)
    try:
        run_in_background(_trainer(group, start, worker, told).fit, meanwhile, request)
    except Exception as error:
        _raise_failure(group)
        if group.max_failures == 0 or _checkpoints_reached(group.run) <= before:
            raise given_up(group, error) from error
        # Ray counts failures of the whole run, and one of weeks on machines that come and go has many. A run that gets
        # on is not given up.
        said = f"workers were lost {group.max_failures + 1} times, but the run got on; starting them again"
        Events(group.run).add("warning", f"{said} (the last: {_innermost(error)})")
        release(group.run)
        return False
    if request.has_left():
        say("the workers have left after a checkpoint, for a machine will be taken away; starting them again")
        return False
    return True


def _trainer(group: Group, start: int, worker: Callable[[dict[str, Any]], None], told: dict[str, Any]) -> Any:
    """Ray's part in the `start`th start of the group."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    workers: dict[str, Any] = {"num_workers": group.num_workers}
    if group.min_workers is not None:
        cluster.look_again_soon()
        workers["num_workers"] = (group.min_workers, group.num_workers)
        workers["elastic_resize_monitor_interval_s"] = 60 * group.resize_minutes
    return TorchTrainer(
        worker,
        train_loop_config=told,
        torch_config=torch_config("nccl" if group.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            **workers,
            use_gpu=group.use_gpu,
            resources_per_worker={"CPU": group.threads, **({"GPU": 1} if group.use_gpu else {})},
        ),
        # Ray keeps no checkpoints here (docs/decisions/0006): it would resume from the newest entry of
        # its list and knows no way back from a damaged one. A name for each start keeps it out of the way.
        # Machines that are taken away with notice are not counted as failures, and waiting for new ones is none.
        run_config=RunConfig(
            name=f"{group.attempt}-{start}",
            storage_path=str(group.run.path / "ray"),
            failure_config=FailureConfig(max_failures=group.max_failures),
        ),
    )


def release(run: RunDir) -> None:
    """Give back what the workers of a run hold, after the process that had started them was ended.

    Ray Train leaves that to a cleaner of its own, which asks Ray's dashboard, and a Ray of one machine has none: the
    CPUs would stay taken, and whatever comes next would wait for them without end.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    told, _ = Events(run).read()
    for key in {event["placement_group"] for event in told if event.get("placement_group")}:
        with contextlib.suppress(Exception):  # it is of a Ray that has ended
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(key))))


def given_up(group: Group, error: BaseException) -> TrainingError:
    """What to say when Ray stopped replacing workers."""
    times = group.max_failures + 1
    often = f"training failed {times} time{'s' * (times != 1)}, the last time" if times > 0 else "training failed"
    return TrainingError(
        f"{often} with: {_innermost(error)}. "
        f"The same command goes on from the last checkpoint in {group.run.checkpoints}"
    )


def _checkpoints_reached(run: RunDir) -> int:
    """The step of the newest checkpoint, 0 without one."""
    from pmlm_core.training.checkpoint import all_steps, step_of

    return max((step_of(folder.name) or 0 for folder in all_steps(run.checkpoints)), default=0)


def _raise_failure(group: Group) -> None:
    path = group.run.failure_of(group.attempt)
    if not path.exists():
        return
    try:
        failure = json.loads(path.read_text(encoding="utf-8"))
        name, message = failure["error"], failure["message"]
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainingError(
            f"a worker met an error that could not be told: {path} cannot be read (is the disk full?). "
            f"The same command goes on from the last checkpoint in {group.run.checkpoints}"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    raise getattr(errors, name, TrainingError)(message)


def _innermost(error: BaseException) -> str:
    """The workers' own words, without the layers Ray wraps around them."""
    for inner in getattr(error, "worker_failures", {}).values():
        return _innermost(inner)
    cause = getattr(error, "cause", None) or error.__cause__
    if isinstance(cause, BaseException):
        return _innermost(cause)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
