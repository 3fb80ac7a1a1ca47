"""Sweeps and fine-tuning runs as they lie on disk and in MLflow, made without training: for tests of `pmlm compare`."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.finetune.config import FinetuneConfig
from pipelines.run_folder import RunDir, write_record
from pipelines.tracking.artifacts import log_artifacts
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import Record
from pipelines.tracking.sink import EVERYTHING
from pmlm_core.tasks.registry import get_task

EXAMPLES = {"rte": 277, "cola": 521}
NOW = 1_760_000_000.0
SEARCHED = ("learning_rate", "batch_size", "warmup_ratio", "num_train_epochs")


@dataclass
class Sweep:
    """One benchmark's part of a sweep.

    Attributes:
        trials: of the search; of these `stopped` and `failed` do not finish.
        finalists: configurations trained with seeds 1 to `seeds`.
        skill: added to every score, in points: what the checkpoint is worth.
    """

    name: str
    benchmark: str
    strategy: str = "random"
    trials: int = 12
    stopped: int = 3
    failed: int = 1
    finalists: int = 2
    seeds: int = 3
    skill: float = 0.0
    model: str = "outputs/mini/pretrain/final"
    objective: str = "AE+PAR"
    seed: int = 0
    hostile: str = ""
    made: list[str] = field(default_factory=list)


def make_sweep(root: Path, sweep: Sweep, uri: str | None = None) -> Path:
    """Write a sweep's folder below `root`/sweep, and send it to MLflow if `uri` is given; returns the folder."""
    random = np.random.default_rng([sweep.seed, len(sweep.benchmark), len(sweep.name)])
    folder = root / "sweep" / sweep.name / sweep.benchmark
    tags = {"stage": "sweep", "benchmark": sweep.benchmark, "sweep": sweep.name, "strategy": sweep.strategy}
    tags |= {"metric": get_task(sweep.benchmark).metric, "mode": "max", "searched": json.dumps(SEARCHED)}
    parent = Record(
        uri or "none", f"pmlm-{sweep.benchmark}", sweep.name,
        {"strategy": sweep.strategy, "output_dir": str(root / "sweep")}, tags, status="FINISHED",
    )  # fmt: skip
    write_record(RunDir(folder), {"identity": {}})
    Journal(folder).append(
        sweep.trials, {"trials/finished": sweep.trials - sweep.stopped, "cost/seconds": 1234.0}, at=NOW
    )
    _keep(folder, parent, uri, [])
    points = [_point(random) for _ in range(sweep.trials)]
    order = sorted(range(sweep.trials), key=lambda place: -_skill(points[place]))
    best, worst = order[: sweep.finalists], order[::-1]
    fate = dict.fromkeys(worst[: sweep.stopped], "stopped")
    fate |= dict.fromkeys(worst[sweep.stopped : sweep.stopped + sweep.failed], "failed")
    for place, point in enumerate(points):
        _trial(folder, sweep, point, 1, fate.get(place, "finished"), "search", place, uri)
    for place in best:
        for seed in range(2, sweep.seeds + 1):
            _trial(folder, sweep, points[place], seed, "finished", "finalist", place, uri)
    return folder


def _trial(
    parent: Path,
    sweep: Sweep,
    point: Mapping[str, Any],
    seed: int,
    outcome: str,
    phase: str,
    place: int,
    uri: str | None,
) -> None:
    name = f"{place:03d}-seed-{seed}"
    params = params_of(sweep.benchmark, sweep.model, parent.parents[1], point)
    tags = {**tags_of(sweep.benchmark, sweep.model, sweep.objective), "stage": "sweep-trial", "trial": name}
    tags |= {"benchmark": sweep.benchmark, "sweep": sweep.name, "strategy": sweep.strategy, "phase": phase}
    tags |= {"configuration": f"{place:010d}", "mode": "max", "outcome": outcome, "searched": json.dumps(SEARCHED)}
    if outcome == "failed":
        tags["failure"] = "the loss is not finite at update 31: lower the learning rate"
    shown = ", ".join(f"{option} {value:.4g}" for option, value in point.items())
    record = Record(uri or "none", f"pmlm-{sweep.benchmark}", f"{sweep.hostile}{shown}, seed {seed}", params, tags)
    record.params["seed"], record.parent = str(seed), "../.."
    record.status = "FAILED" if outcome == "failed" else "FINISHED"
    quality = sweep.skill + 100 * _skill(point)
    folder = parent / "trials" / name
    seconds = point["num_train_epochs"] * (18 + 240 / point["batch_size"]) * (1 + 0.05 * (seed % 3))
    files = write_run(
        folder, sweep.benchmark, quality, seed * 1000 + place, outcome, point["num_train_epochs"], seconds
    )
    sweep.made.append(str(folder))
    _keep(folder, record, uri, files)


def make_finetune(
    root: Path, benchmark: str, name: str, quality: float, seeds: Sequence[int], uri: str | None, **options: Any
) -> Path:
    """Write the seeds of a `pmlm finetune` run, and send them to MLflow if `uri` is given."""
    model = options.pop("model", "outputs/mini/pretrain/final")
    point = {"learning_rate": 2e-4, "batch_size": 32, "warmup_ratio": 0.1, "num_train_epochs": 5, **options}
    for seed in seeds:
        folder = root / "finetune" / name / f"seed-{seed}"
        params = {**params_of(benchmark, model, root / "finetune", point), "seed": str(seed)}
        tags = {**tags_of(benchmark, model, "AE+PAR"), "stage": "finetune", "finetune_run": name}
        record = Record(uri or "none", "pmlm-finetune", f"{name}-seed-{seed}", params, tags, status="FINISHED")
        files = write_run(folder, benchmark, quality, seed, "finished", point["num_train_epochs"], None)
        _keep(folder, record, uri, files)
    return root / "finetune" / name


def write_run(
    folder: Path, benchmark: str, quality: float, seed: int, outcome: str, epochs: int, seconds: float | None
) -> list[str]:
    """Journal, scores and results by example of one run; returns the files for MLflow."""
    write_record(RunDir(folder), {"identity": {}, "seed": seed})
    journal, per_epoch, start = Journal(folder), 20, NOW + seed
    done = {"finished": epochs, "stopped": max(1, epochs // 3), "failed": 1}[outcome]
    metric = get_task(benchmark).metric
    entry = examples_of(benchmark, quality, seed)
    final = figure_of(metric, entry)
    random = np.random.default_rng(seed)
    for epoch in range(1, done + 1):
        step = epoch * per_epoch
        shortfall = 12 * math.exp(-3 * epoch / epochs) + random.uniform(0, 1.0) * (epoch < epochs)
        journal.append(step - 1, {"train/loss": 0.7 - 0.02 * epoch, "epoch": epoch - 0.05}, at=start + 30 * epoch - 1)
        journal.append(step, {f"eval/{metric}": final - shortfall}, at=start + 30 * epoch)
    last = done * per_epoch
    cost = (
        {}
        if seconds is None
        else {"cost/seconds": seconds * done / epochs, "cost/cpu_seconds": seconds * done / epochs}
    )
    if outcome != "finished":
        journal.append(last + 1, cost, at=start + 30 * done + 5)
        return []
    ignorant = {"accuracy": 52.71, "matthews": 0.0}[metric]
    scored = {f"final/dev/{metric}": final, f"baseline/dev/{metric}": ignorant}
    journal.append(last + 1, {**scored, **cost}, at=start + 30 * done + 5)
    _write(folder / "scores.json", {"task": benchmark, "seed": seed, "scores": {"dev": {metric: final}}})
    ids = [str(number) for number in range(EXAMPLES[benchmark])]
    content = {"format_version": 1, "task": benchmark, "split": "dev", "metric": metric, "examples": f"{benchmark}-dev"}
    _write(folder / "paired" / "dev.json", {**content, "ids": ids, "figures": {metric: entry}})
    _write(folder / "model" / "pmlm_task.json", {"task": benchmark})
    return ["scores.json", "paired/dev.json", "model/pmlm_task.json"]


def examples_of(benchmark: str, quality: float, seed: int) -> dict[str, Any]:
    """Results by example of a model that is right about `quality` percent of the time, mostly on the easy examples."""
    count = EXAMPLES[benchmark]
    hardness = np.random.default_rng(7).normal(size=count)
    chance = min(max(quality / 100, 0.05), 0.97)
    noise = np.random.default_rng(seed + 1).normal(scale=0.8, size=count)
    order = np.argsort(hardness + noise)
    right = np.zeros(count, bool)
    right[order[: round(chance * count + np.random.default_rng(seed).normal(scale=0.01 * count))]] = True
    if benchmark == "rte":
        return {"kind": "mean", "values": (100.0 * right).tolist()}
    gold = (np.random.default_rng(8).random(count) < 0.68).astype(int)
    return {
        "kind": "labels",
        "gold": gold.astype(str).tolist(),
        "predicted": np.where(right, gold, 1 - gold).astype(str).tolist(),
    }


def figure_of(metric: str, entry: Mapping[str, Any]) -> float:
    from pmlm_core.tasks.scores.paired import figure

    return float(figure(metric, entry))


def params_of(benchmark: str, model: str, output_dir: Path, point: Mapping[str, Any]) -> dict[str, str]:
    config = FinetuneConfig(task=benchmark, model=model, data_dir="glue_data", output_dir=str(output_dir))
    told = {
        **asdict(config),
        **vars(get_task(benchmark).recipe),
        **point,
        "micro_batch_size": 8,
        "threads_per_worker": 1,
    }
    return {name: str(value) for name, value in told.items()}


def tags_of(benchmark: str, model: str, objective: str) -> dict[str, str]:
    return {
        "task": benchmark,
        "metric": get_task(benchmark).metric,
        "version": "0.1.0",
        "commit": "0123abc",
        "data.train": f"{benchmark}-train 2490",
        "data.dev": f"{benchmark}-dev {EXAMPLES[benchmark]}",
        "pretrained.path": model,
        "pretrained.sha256": f"{abs(sum(map(ord, model))):064d}",
        "pretrained.objective": objective,
    }


def everything(root: Path, uri: str | None, *, size: int = 9) -> Iterator[Path]:
    """A store to try things on: two benchmarks, three sweeps, and runs of `pmlm finetune`."""
    yield make_sweep(root, Sweep("night", "rte", trials=size, stopped=size // 4), uri)
    yield make_sweep(root, Sweep("hyper", "rte", "asha", trials=size, stopped=size // 2, skill=-1.0, seed=5), uri)
    yield make_sweep(root, Sweep("night", "cola", trials=size, stopped=1, seed=3), uri)
    yield make_finetune(root, "rte", "rte-by-hand", 60.0, (1, 2, 3), uri)


def _point(random: np.random.Generator) -> dict[str, Any]:
    return {
        "learning_rate": float(f"{10 ** random.uniform(-5, -3):.4g}"),
        "batch_size": int(random.choice([16, 32])),
        "warmup_ratio": round(float(random.uniform(0, 0.2)), 3),
        "num_train_epochs": int(random.choice([3, 5, 10])),
    }


def _skill(point: Mapping[str, Any]) -> float:
    """Share of correct answers that these options come to: best near a learning rate of 2e-4, better with epochs."""
    distance = math.log10(point["learning_rate"]) - math.log10(2e-4)
    return 0.66 - 0.09 * distance**2 + 0.012 * math.log2(point["num_train_epochs"]) - 0.0004 * point["batch_size"]


def _keep(folder: Path, record: Record, uri: str | None, files: list[str]) -> None:
    record.save(folder)
    if uri is None:
        return
    delivery = Delivery(folder, uri, record)
    delivery.deliver(EVERYTHING)
    record.delivered = True
    record.save(folder)
    if files:
        log_artifacts(folder, files, uri)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


if __name__ == "__main__":  # a store and folders to look at: python tests/pipelines/comparing_data.py FOLDER [TRIALS]
    import sys

    target = Path(sys.argv[1]).absolute()
    began = time.monotonic()
    for made in everything(target, f"sqlite:///{target}/mlflow.db", size=int(sys.argv[2]) if len(sys.argv) > 2 else 16):
        print(made, f"{time.monotonic() - began:.0f} s", flush=True)
