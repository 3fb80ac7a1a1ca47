"""One run of Ray Tune, new or gone on with: the only place that builds a `Tuner`."""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines import cluster
from pipelines.console import say, warn
from pipelines.sweep.course import TUNE, Course
from pipelines.sweep.strategies import Plan
from pipelines.sweep.trial import Told

_STARTING = threading.Lock()


def fit(course: Course, phase: str, plan: Plan, trainable: Callable[..., None], told: Told, watch: Any) -> None:
    """Run the trials of a phase until all have ended; where an earlier command had begun, go on with it.

    Trials that failed are for `watch` to tell. Tune's own state is gone on with where proposals depend on it; else, or
    if it is not there or damaged, the rest is proposed anew, and trials found on disk say that they have ended.
    """
    from ray import tune

    _quiet()
    config = course.config
    wrapped = tune.with_resources(tune.with_parameters(trainable, told=told), _resources(course))
    # Tune keeps trainables by name, one for each name in the whole cluster's job.
    wrapped.__name__ = f"{course.benchmark.name}-{phase}"
    place = course.run.path / TUNE
    if not plan.remembers:
        shutil.rmtree(place / phase, ignore_errors=True)
    restored = _restored(place / phase, wrapped, config.retry_failed)
    if restored is None and plan.num_samples < 1:
        return
    tuner = restored or tune.Tuner(
        wrapped,
        param_space=plan.param_space,
        tune_config=tune.TuneConfig(
            metric=plan.metric,
            mode="max" if plan.metric else None,
            search_alg=plan.search_alg,
            scheduler=plan.scheduler,
            num_samples=plan.num_samples,
            # A trial that is stopped leaves its workers behind, if it has some, unless its process ends with it.
            reuse_actors=not (plan.copies or plan.keeps_place or config.num_workers > 1),
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=phase,
            storage_path=str(place),
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=5 if plan.copies or plan.keeps_place else None),
            callbacks=[watch],
            verbose=0,
        ),
    )
    tuner.fit()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[Callable[[], None]]:
    """Keep other benchmarks from starting Tune, until what is yielded is called, or at the end.

    Tune's tables of trainables are not made for threads: two that start at the same moment trip over each other.
    """
    _STARTING.acquire()
    lock = contextlib.ExitStack()
    lock.callback(_STARTING.release)
    try:
        yield lock.close
    finally:
        lock.close()


def _restored(path: Path, trainable: Any, retry_failed: bool) -> Any:
    """The Tuner of an earlier command, None if there is none or it cannot be read."""
    from ray import tune

    if not tune.Tuner.can_restore(str(path)):
        return None
    try:
        tuner = tune.Tuner.restore(str(path), trainable, resume_unfinished=True, restart_errored=retry_failed)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        warn(f"Tune's state in {path} cannot be used ({type(error).__name__}: {text}): trials are proposed anew")
        path.rename(path.with_name(f"{path.name}-unreadable-{int(time.time())}"))
        return None
    say(
        f"going on with the {path.name} phase of {path.parent.parent.name}; max_concurrent_trials stays as it was when "
        "it began"
    )
    return tuner


def _resources(course: Course) -> Any:
    config = course.config
    if config.num_workers > 1:
        return {"cpu": 0, "memory": 1 << 20}  # its workers ask for CPUs; to ask for nothing at all is refused
    return {"cpu": config.cpus_per_trial, **({"gpu": config.gpus_per_trial} if config.gpus_per_trial else {})}


def _dirname(trial: Any) -> str:
    """Tune's own would hold the whole configuration, longer than a file system takes."""
    return f"trial-{trial.trial_id}"


def _quiet() -> None:
    if not cluster.verbose():
        for name in ("ray.tune", "ray.train", "ray.air"):
            logging.getLogger(name).setLevel(logging.ERROR)
