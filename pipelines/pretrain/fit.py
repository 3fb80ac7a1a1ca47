"""A plan handed to Ray Train, and what went wrong in the workers' own words."""

import json
import threading
from collections.abc import Callable

from pipelines import cluster
from pipelines.pretrain.plan import WorkPlan
from pmlm_core import errors
from pmlm_core.errors import TrainingError


def fit(plan: WorkPlan) -> None:
    """Run the workers to the last step.

    Raises:
        PmlmError: what a worker met and a restart would not mend.
        TrainingError: workers were lost too often.
    """
    config = plan.config
    needed = None if cluster.is_remote() else cluster.cpus_to_start(config.num_workers * plan.threads)
    with cluster.connected(needed):
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from pipelines.pretrain.loop import ray_worker

        cluster.require(config.num_workers, plan.threads, config.use_gpu)
        trainer = TorchTrainer(
            ray_worker,
            train_loop_config={"plan": plan},
            torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.num_workers,
                use_gpu=config.use_gpu,
                resources_per_worker={"CPU": plan.threads, **({"GPU": 1} if config.use_gpu else {})},
            ),
            # Ray keeps no checkpoints here (docs/decisions/0006): it would resume from the newest entry of
            # its list and knows no way back from a damaged one. A name for each attempt keeps it out of the way.
            run_config=RunConfig(
                name=plan.attempt,
                storage_path=str(plan.run.path / "ray"),
                failure_config=FailureConfig(max_failures=config.max_failures),
            ),
        )
        try:
            _in_background(trainer.fit)
        except Exception as error:
            _raise_failure(plan)
            raise given_up(plan, error) from error
    _raise_failure(plan)


def given_up(plan: WorkPlan, error: BaseException) -> TrainingError:
    """What to say when Ray stopped replacing workers."""
    times = plan.config.max_failures + 1
    often = f"training failed {times} time{'s' * (times != 1)}, the last time" if times > 0 else "training failed"
    return TrainingError(
        f"{often} with: {_innermost(error)}. "
        f"The same command goes on from the last checkpoint in {plan.run.checkpoints}"
    )


def _in_background(work: Callable[[], object]) -> None:
    """Call `work` outside the main thread, where Ray would put its own handler on Ctrl-C and keep it there."""
    met: list[BaseException] = []

    def call() -> None:
        try:
            work()
        except BaseException as error:
            met.append(error)

    thread = threading.Thread(target=call, name="pmlm-fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.5)
    if met:
        raise met[0]


def _raise_failure(plan: WorkPlan) -> None:
    path = plan.run.failure_of(plan.attempt)
    if path.exists():
        failure = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        raise getattr(errors, failure["error"], TrainingError)(failure["message"])


def _innermost(error: BaseException) -> str:
    """The workers' own words, without the layers Ray wraps around them."""
    for inner in getattr(error, "worker_failures", {}).values():
        return _innermost(inner)
    cause = getattr(error, "cause", None) or error.__cause__
    if isinstance(cause, BaseException):
        return _innermost(cause)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
