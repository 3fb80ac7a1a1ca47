"""What Ray Tune and MLflow add to a trial: `pmlm sweep` beside the bare fine-tuning loop on the same points.

    python benchmarks/sweep_overhead.py --model outputs/demo/pretrain/final [--trials 8]

Each is run with 2 trials and with more, one at a time on one thread, on the embedded pairs. The difference of the two,
for each trial more, is what a trial takes; what is left is paid once. The bare loop is one process that trains point
after point, without Ray, without MLflow, on the same encoded examples.
"""

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from pipelines import cluster
from pipelines.finetune.encode import encode_all
from pipelines.finetune.job import settled_micro_batch
from pipelines.finetune.loop import finetune
from pipelines.finetune.rundir import open_record
from pipelines.finetune.trainee import TrainingBatches, job_family
from pipelines.run_folder import write_record
from pipelines.sweep.benchmark_sweep import BenchmarkSweep
from pipelines.sweep.board import Board, Standing
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import Course, courses
from pipelines.sweep.tracking import SweepTracking
from pipelines.sweep.trials import Point, job_at
from pipelines.team import Team

SPACE = Path("recipes/sweep/spaces/demo_pairs.py")
RATES = [1e-4 * (number + 1) for number in range(32)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--rows", type=int, default=600, help="of the pairs, that a trial trains on")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/sweep-overhead"))
    given = parser.parse_args()
    if given.trials < 3:
        parser.error("--trials must be 3 or more: what a trial takes is told by those beyond 2")
    shutil.rmtree(given.output_dir, ignore_errors=True)
    disable_progress_bar()
    took: dict[tuple[str, int], float] = {}
    encode_all(course_of(given, 2, "none").job)
    for count in (2, given.trials):  # the bare loop's process has imported everything before it is timed, as a trial's
        took["bare loop", count] = bare(course_of(given, count, "none"), count)
    with cluster.connected():
        for name, store in (("Tune", "none"), ("Tune and MLflow", f"sqlite:///{given.output_dir / 'mlflow.db'}")):
            for count in (2, given.trials):
                took[name, count] = swept(course_of(given, count, store))
    table(took, given.trials)


def course_of(given: argparse.Namespace, count: int, store: str) -> Course:
    config = SweepConfig(
        benchmark=[str(SPACE)],
        model=given.model,
        data_dir=["recipes/sample/pairs"],
        output_dir=str(given.output_dir),
        run_name=f"{count}-{'tracked' if store != 'none' else 'untracked'}",
        strategy="paper_grid",
        grid={"learning_rate": RATES[:count]},
        options={"max_train_rows": given.rows},
        seeds="1",
        max_concurrent_trials=1,
        register_model="none",
        tracking_uri=store,
    )
    config.validate()
    return courses(config)[0][0]


def bare(course: Course, count: int) -> float:
    base = encode_all(course.job)
    base = replace(base, final=tuple(part for part in base.final if part.split.name == "dev"))
    began = time.perf_counter()
    for rate in RATES[:count]:
        job: Any = job_at(base, Point({"learning_rate": rate}, 1), course.run.path / "bare" / f"{rate:g}")
        micro = settled_micro_batch(job.config, job.recipe, TrainingBatches(job, job_family(job)).longest)
        write_record(job.run, {})
        finetune(replace(job, micro_batch_size=micro, threads=1), Team())
    took = time.perf_counter() - began
    shutil.rmtree(course.run.path)
    return took


def swept(course: Course) -> float:
    open_record(course.run, course.identity(), {})
    course = replace(course, job=encode_all(course.job))
    began = time.perf_counter()
    tracking = SweepTracking(course)
    BenchmarkSweep(course, Board([Standing(course.benchmark.name, course.metric)]), tracking, news=lambda: None).run()
    tracking.close("FINISHED", None)
    return time.perf_counter() - began


def table(took: dict[tuple[str, int], float], trials: int) -> None:
    print("| | once, s | a trial, s | above the bare loop, a trial, s |\n|---|---|---|---|")
    plain = None
    for name in dict.fromkeys(name for name, _ in took):
        slope = (took[name, trials] - took[name, 2]) / (trials - 2)
        plain = slope if plain is None else plain
        print(f"| {name} | {took[name, 2] - 2 * slope:.1f} | {slope:.2f} | {slope - plain:+.2f} |")


if __name__ == "__main__":
    main()
