"""What a GPU is worth with this project, in so many minutes: the kernels' tests, then every benchmark for a GPU.

    python benchmarks/gpu_round.py [--minutes 14] [--preset base] [--rows 64] [--tasks 1 2 3] [--to FOLDER]

Those that tell most come first; what no time is left for is named at the end. Each keeps its tables in
`benchmarks/results/`, and the output of each lies beside them in `--to`, if given, where copies of the tables go too.
Needs torch for CUDA, triton, transformers, rich, pytest and hypothesis; neither Ray nor MLflow. The exit code is 1 if
one has failed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


TILED = ("attention_tiled", "residual_tiled", "activation_tiled", "cross_entropy_tiled")


@dataclass(frozen=True)
class Task:
    """A command, and the seconds it took or is thought to take on one H200: with fewer left it is not begun."""

    name: str
    seconds: float
    words: tuple[str, ...]


def tasks(preset: str, rows: int) -> list[Task]:
    """In the order of what they tell."""
    size = ("--preset", preset, "--rows", str(rows))

    def benchmark(name: str, seconds: float, *words: str, save: str | None = None) -> Task:
        kept = ("--save",) if save is None else ("--save", save)
        return Task(f"{name} {save or ''}".strip(), seconds, (f"benchmarks/{name}.py", *words, *kept))

    kernels = [f"tests/model/test_{name}.py" for name in ("gpu", *TILED)]
    name, how = "pretrain_step", ("--compiled", "--rounds", "10", "--only", "pmlm AE+PAR, compiled, graphs")
    alone, padded = "pmlm AE, compiled, graphs", ("BERT, padded, compiled", "BERT, padded, compiled, graphs")
    # Few at a time: what was recorded as graphs keeps its activations.
    return [
        Task("tests", 90, ("-m", "pytest", "-q", *kernels, "-k", "not compile_for")),
        benchmark(name, 110, *size, *how, "BERT", "BERT, padded", padded[0], "--profile"),
        benchmark(name, 110, *size, *how, alone, padded[1], save="graphs"),
        benchmark("between", 60, "--sweep"),
        benchmark("attention", 60, "--rows", str(rows), "--dropout", "0.1"),
        benchmark(name, 60, "--preset", preset, "--rows", str(4 * rows), *how, save=f"{4 * rows}-rows"),
        benchmark(name, 110, *size, *how, *padded, "--dropout", "0", save="no-dropout"),
        benchmark("loading", 60, "--preset", preset, "--batch", str(rows), "--steps", "30", save="gpu"),
        benchmark("decoding", 120, "--preset", preset, save=preset),
        benchmark("one_pass", 60, "--preset", preset, save="gpu"),
        benchmark(
            "attention",
            120,
            "--rows",
            str(rows),
            "--dropout",
            "0.1",
            "--sweep_tiles",
            "--sweep_seconds",
            "90",
            save="best-tiles",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=14.0, help="for all of it")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--rows", type=int, default=64, help="of 512 tokens, in a batch")
    parser.add_argument("--to", type=Path, help="folder for outputs and copies of the tables")
    parser.add_argument("--tasks", type=int, nargs="+", metavar="N", help="these alone, counted from 1 as listed here")
    parser.epilog = "\n".join(f"{at}: {task.name}" for at, task in enumerate(tasks("base", 64), 1))
    given = parser.parse_args()
    ends, outcomes = time.monotonic() + 60 * given.minutes, []
    for number, task in enumerate(tasks(given.preset, given.rows), 1):
        if given.tasks and number not in given.tasks:
            continue
        left = ends - time.monotonic()
        outcome = run(task, left, given.to) if left >= task.seconds else f"not begun: {left:.0f} s were left"
        outcomes.append(f"{task.name}: {outcome}")
        print(outcomes[-1], flush=True)
    print("\n" + "\n".join(outcomes))
    sys.exit(any("failed" in outcome for outcome in outcomes))


def run(task: Task, limit: float, to: Path | None) -> str:
    """Run one, showing its output; what became of it, in words."""
    print(f"\n$ python {' '.join(task.words)}", flush=True)
    begun, wall = time.monotonic(), time.time()
    paths = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "COLUMNS": "150"}
    output, late = [], threading.Event()
    with subprocess.Popen(
        [sys.executable, *task.words], cwd=HERE.parent, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        alarm = threading.Timer(limit, stop)
        alarm.start()
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                output.append(line)
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            alarm.cancel()
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        (to / f"{task.name.replace(' ', '-')}.txt").write_text("".join(output), encoding="utf-8")
        for table in RESULTS.glob("*.md"):
            if table.stat().st_mtime >= wall:
                shutil.copy(table, to)
    code = process.returncode
    outcome = "stopped, for the time was over," if late.is_set() else "done" if code == 0 else f"failed ({code})"
    return f"{outcome} after {time.monotonic() - begun:.0f} s"


if __name__ == "__main__":
    main()
