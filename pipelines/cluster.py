"""Ray, in one place: start it or join it, with the settings that Ray leaves wrong by default for short commands."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.console import say, warn
from pipelines.leaving import own_sigterm
from pipelines.variables import set_for_a_while
from pmlm_core.errors import ConfigError

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"

# Ray Train reads these in the driver and hands them on to its controller and workers.
_DRIVER_ENVIRONMENT = {
    # The controller asks its workers how they are every 2 s by default; a report waits for that question.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # On a busy machine importing torch in a worker alone can take longer than the 60 s it is given by default.
    _START_TIMEOUT: "300",
    # Some clouds give notice 30 s before they take a machine.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    # Without it a killed Tune driver loses finished trials.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # Workers stay in the directory of the command, so that relative paths mean the same everywhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    # Tune's newer output prints boxes and folders whatever its verbosity; the sweep has a table of its own.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Files that Tune would write for every trial, and TensorBoard; the figures are in the trial's journal.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}

_WORKER_ENVIRONMENT = {
    # How long Tune waits for a stopped trial to write its last checkpoint before it uses the process again.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # glibc gives freed activations back to the kernel and faults them in again at every step, unless told not to.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    # Ray Train calls the loop in a thread, to which glibc would give a heap in pieces of 64 MB, heeding neither.
    "MALLOC_ARENA_MAX": "1",
}

# Where workers keep shards of an object store, how much of them (pmlm_core.corpus.shard_cache), and how long they wait
# for it (pmlm_core.stores); if the user set it.
_HANDED_ON = ("PMLM_CACHE", "PMLM_CACHE_GB", "PMLM_STORE_SECONDS")

_VERBOSE = "PMLM_RAY_LOGS"


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[Any]:
    """Connect to Ray for the time of a command, and leave it as it was found.

    A running Ray is used as it is; `RAY_ADDRESS` names a cluster to join; otherwise one is started on this machine with
    `num_cpus` CPUs (all of them by default) and shut down at the end. `PMLM_RAY_LOGS=1` shows Ray's own log.
    """
    import ray

    mine = not ray.is_initialized()
    connect(num_cpus)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def connect(num_cpus: int | None = None) -> None:
    """Connect to Ray if this process is not connected yet; see `connected`."""
    for name, value in _DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    options: dict[str, Any] = {
        "logging_level": logging.INFO if verbose() else logging.ERROR,
        "log_to_driver": verbose(),
    }
    address = os.environ.get("RAY_ADDRESS")
    if address:
        say(f"joining the Ray cluster at {address}")
        _start(options | {"runtime_env": {"env_vars": worker_environment()}}, retries=0)
        return
    say("starting Ray on this machine (some seconds)")
    # "local", or Ray would join whatever was started on this machine before, and refuse num_cpus.
    options |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
    # A Ray of ours hands its environment on to its workers. Told as a runtime environment instead, it would be made by
    # an agent first, and the workers that Ray starts in advance, having none, would be left aside for new ones.
    with set_for_a_while(worker_environment()), _on_loopback():
        _start(options, retries=2)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started meanwhile listens on 127.0.0.1 alone, as one on macOS and Windows does by itself.

    Told `_node_ip_address="127.0.0.1"`, Ray takes the machine's outward address and listens on all.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def look_again_soon() -> None:
    """For an elastic group: wait for no more workers than fit, unless the user has said how long.

    Ray counts nodes every 20 s. Until then it may plan with one that is lost, and wait for it as long as for slow ones.
    """
    if os.environ.get(_START_TIMEOUT) == _DRIVER_ENVIRONMENT[_START_TIMEOUT]:
        os.environ[_START_TIMEOUT] = "20"


def verbose() -> bool:
    """Whether Ray's own log is to be shown."""
    return os.environ.get(_VERBOSE, "") not in ("", "0")


def _start(options: dict[str, Any], retries: int) -> None:
    """Start or join Ray; on a machine busy with other work it takes a second attempt, Ray gives itself only 30 s.

    Raises:
        ConfigError: Ray did not come up.
    """
    import ray

    for left in range(retries, -1, -1):
        try:
            with own_sigterm():
                ray.init(**options)
            return
        except Exception as error:  # Ray raises a bare Exception when it is too slow
            ray.shutdown()
            if not left:
                what = (
                    f"the Ray cluster at {os.environ['RAY_ADDRESS']} cannot be joined"
                    if is_remote()
                    else ("Ray could not be started on this machine")
                )
                raise ConfigError(f"{what}: {' '.join(str(error).split())[:300]}") from error
            warn("Ray did not come up in time (is the machine busy?); trying again")


def worker_environment() -> dict[str, str]:
    """Environment of every worker process; what the user has set himself wins."""
    handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    return handed_on | {name: os.environ.get(name, value) for name, value in _WORKER_ENVIRONMENT.items()}


def available_cpus() -> int:
    """CPUs of this machine that this process may use: those it is bound to, or a container's share if that is less."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _container_share(Path("/sys/fs/cgroup"))
    return bound if share is None else max(1, min(bound, int(share)))


def _container_share(root: Path) -> float | None:
    """The CPU limit of the control group, in CPUs (`docker --cpus`), of version 2 or 1; None without one."""
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def is_remote() -> bool:
    """Whether work will run on a cluster that was started elsewhere."""
    return bool(os.environ.get("RAY_ADDRESS"))


def threads_per_worker(asked: int | None, num_workers: int) -> int:
    """CPU threads of a worker: as asked for, or an even share of this machine, and 1 on a cluster that is joined."""
    if asked is not None:
        return asked
    return 1 if is_remote() else max(1, available_cpus() // num_workers)


def cpus_to_start(needed: int) -> int:
    """How many CPUs a local Ray should count, so that `needed` fit; says so if the machine has fewer."""
    have = available_cpus()
    if needed > have and not is_remote():
        warn(f"{needed} CPUs are asked for and this machine has {have}; the workers will share them and be slower")
    return max(have, needed)


def tell_missing_gpu() -> None:
    """For a dry run that asks for GPUs: say so where this machine has none and no cluster is joined."""
    import torch

    if not is_remote() and not torch.cuda.is_available():
        warn("GPUs are asked for and this machine has none: run here, the command would be refused")


def require(
    workers: int,
    cpus_per_worker: int,
    use_gpu: bool,
    named: str = "cpus_per_worker",
    counted: str = "num_workers",
    gpus_by: str = "--use_gpu true",
) -> None:
    """Refuse at once what Ray would wait for without end, and say what it will wait for, or leave idle.

    Args:
        named: the option that holds a worker's CPUs.
        counted: the option that holds the number of workers.
        gpus_by: what to give for GPUs to be used; "" where they are.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs. With an autoscaler (RAY_ADDRESS set) it is only a warning.
    """
    import ray

    have, free = ray.cluster_resources(), ray.available_resources()
    for kind, needed in (("CPU", workers * cpus_per_worker), ("GPU", workers * use_gpu)):
        text = f"{'1 worker needs' if workers == 1 else f'{workers} workers need'} {needed} {kind}{'s' * (needed != 1)}"
        if have.get(kind, 0) < needed:
            text = f"{text}, Ray has {have.get(kind, 0):g}"
            if not is_remote():
                raise ConfigError(f"{text}; lower {counted} or {named if kind == 'CPU' else 'leave out use_gpu'}")
            warn(f"{text}; waiting for more nodes")
        elif free.get(kind, 0) < needed:
            say(f"{text}, {free.get(kind, 0):g} of Ray's {have[kind]:g} are free; waiting for the others")
    if have.get("GPU", 0) and not use_gpu and gpus_by:
        warn(f"Ray has {have['GPU']:g} GPUs and this runs on CPUs, much slower; {gpus_by} uses them")
