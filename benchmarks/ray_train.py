"""Pre-training under Ray Train beside the same loop under plain torchrun: what a step takes, and what starting takes.

    pmlm tokenizer --config recipes/pretrain/demo.yaml && pmlm preprocess --config recipes/pretrain/demo.yaml
    python benchmarks/ray_train.py --data_dir outputs/demo/blocks [--preset tiny] [--steps 400] [--rounds 3]

Both call `pipelines.pretrain.loop.train` with the same plan: blocks, steps, workers and threads; one in the workers
that `pmlm pretrain` starts (`pipelines.train_group.fit`), the other in those of `torch.distributed.run` with gloo.
torchrun's workers get the environment that Ray's get (glibc's malloc settings) and their niceness (15). Runs alternate.
A step is wall time between lines of the journal, the median over a run's lines; starting is the time from the call to
the first line, less the steps done by then.
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from race import Ratio
from report import Report, options

from pipelines import cluster
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.loop import ray_worker, train
from pipelines.pretrain.plan import WorkPlan, identity, plan_for
from pipelines.pretrain.rundir import open_run
from pipelines.team import Team
from pipelines.tracking.journal import Journal
from pipelines.train_group import Group, fit
from pmlm_core.corpus.manifest import Manifest

RAY, TORCHRUN = "Ray Train", "torchrun"
NICENESS = 15  # of Ray's workers, by default


@dataclass(frozen=True)
class Took:
    """Seconds: of a step, before the first step, and from the call to its return."""

    step: float
    start: float
    whole: float


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data_dir", help="blocks made by `pmlm preprocess`")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker_plan", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker_plan:
        return torchrun_worker(Path(given.worker_plan))
    ways: dict[str, Callable[[WorkPlan], None]] = {RAY: under_ray, TORCHRUN: under_torchrun}
    took: dict[str, list[Took]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="pmlm-benchmark-") as scratch:
        for turn in range(given.rounds):
            for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
                took[name].append(timed(ways[name], plan_of(given, scratch, f"{name.replace(' ', '')}-{turn}")))
    show(given, took)


def plan_of(given: argparse.Namespace, scratch: str, name: str) -> WorkPlan:
    """A run of its own folder; all runs are the same but for that."""
    config = PretrainConfig(
        data_dir=given.data_dir,
        output_dir=scratch,
        run_name=name,
        preset=given.preset,
        batch_size=given.batch_size,
        max_steps=given.steps,
        logging_steps=max(1, given.steps // 20),
        save_steps=given.steps,
        eval_rows=0,
        num_workers=given.workers,
        cpus_per_worker=1,
        tracking_uri="none",
    )
    manifest = Manifest.load(given.data_dir)
    return plan_for(config, open_run(config, identity(manifest))[0], manifest, attempt=name, threads=1)


def timed(way: Callable[[WorkPlan], None], plan: WorkPlan) -> Took:
    begun = time.time()
    way(plan)
    whole = time.time() - begun
    lines = [(entry.step, entry.time) for entry in Journal(plan.run.path).entries()]
    step = statistics.median((later - sooner) / (b - a) for (a, sooner), (b, later) in pairwise(lines))
    return Took(step, lines[0][1] - begun - lines[0][0] * step, whole)


def under_ray(plan: WorkPlan) -> None:
    group = Group(plan.run, plan.attempt, plan.config.num_workers, plan.threads, use_gpu=False, max_failures=0)
    fit(group, ray_worker, {"plan": plan})


def under_torchrun(plan: WorkPlan) -> None:
    path = plan.run.path / "plan.pickle"
    path.write_bytes(pickle.dumps(plan))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={plan.config.num_workers}", __file__, f"--worker_plan={path}"]
    environment = os.environ | cluster.worker_environment() | {"OMP_NUM_THREADS": str(plan.threads)}
    subprocess.run(command, check=True, env=environment)


def torchrun_worker(path: Path) -> None:
    """A process that torchrun started."""
    import torch.distributed as dist
    from transformers.utils.logging import disable_progress_bar

    os.nice(max(0, NICENESS - os.nice(0)))
    disable_progress_bar()
    dist.init_process_group("gloo")
    train(pickle.loads(path.read_bytes()), Team(dist.get_rank(), dist.get_world_size()))
    dist.destroy_process_group()


def show(given: argparse.Namespace, took: dict[str, list[Took]]) -> None:
    report = Report(
        "ray-train",
        "Ray Train beside torchrun",
        f"The same pre-training loop, {given.preset}, batches of {given.batch_size} rows, {given.workers} workers of "
        f"one thread, {given.steps} steps, {given.rounds} runs each, taking turns; wall time.",
    )
    rows = []
    for name, runs in took.items():
        steps = [run.step * 1e3 for run in runs]
        start, whole = (statistics.median(values) for values in zip(*((r.start, r.whole) for r in runs), strict=True))
        spread = f"{statistics.median(steps):.2f} ({min(steps):.2f}-{max(steps):.2f})"
        rows.append((name, spread, f"{start:.1f}", f"{whole:.1f}"))
    report.table("Medians over the runs", ("way", "a step, ms", "before the first step, s", "whole run, s"), rows)
    ratio = Ratio.of({name: [run.step for run in runs] for name, runs in took.items()}, RAY, TORCHRUN)
    report.note(f"A step under Ray Train takes {ratio} times as long as under torchrun: median of the rounds (spread).")
    report.finish(given.save)


if __name__ == "__main__":
    main()
