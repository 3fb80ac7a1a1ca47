"""One trial as it lies on disk: its folder is named by what decides it, so that it is found and not run twice."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.finetune.config import RECIPE
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import MODEL, SCORES, write_json
from pipelines.run_folder import RunDir
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.journal import read

POINT, FAILURE, COST, STOPPED = "point.json", "failure.json", "cost.json", "stopped.json"

ENDINGS = (SCORES, STOPPED, FAILURE)
"""Files of which one says that a trial has ended."""

COMPLETING = "completing_seconds"
"""Of a trial's cost, what `complete_winner` has added to `seconds`."""

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """A place in the space: the searched options with their values, and the seed."""

    params: dict[str, Any]
    seed: int

    @property
    def configuration(self) -> str:
        """Names the options without the seed."""
        return _digest(self.params)

    @property
    def name(self) -> str:
        """The trial's folder."""
        return f"{self.configuration}-seed-{self.seed}"


def point_of(config: Params, seed: int) -> Point:
    """The point that Ray Tune's configuration of a trial stands for; `seed` is taken where it names none."""
    plain = {name: _plain(value) for name, value in config.items()}
    seed = int(plain.pop("seed", seed))
    return Point(plain, seed)


def job_at(base: Job, point: Point, folder: Path) -> Job:
    """The job of one trial.

    Raises:
        ConfigError: the values contradict each other.
    """
    config = replace(base.config, **point.params)
    config.validate()
    source = base.source.here()
    recipe = replace(base.recipe, **{name: value for name, value in point.params.items() if name in RECIPE})
    return replace(base, config=config, recipe=recipe, source=source, run=RunDir(folder), seed=point.seed)


@dataclass(frozen=True)
class Ended:
    """A trial that was trained to its end.

    Attributes:
        score: the metric on the split that is chosen by.
        seconds: of training and prediction, over all attempts.
    """

    folder: Path
    point: Point
    score: float
    best_epoch: int
    seconds: float
    result: dict[str, Any]

    @property
    def has_model(self) -> bool:
        return (self.folder / MODEL / "config.json").is_file()


def ended_trials(trials: Path, metric: str, split: str) -> Iterator[Ended]:
    """Every trial in a sweep's folder that has its scores, in the order of their names."""
    for path in sorted(trials.glob(f"*/{SCORES}")):
        found = read_ended(path.parent, metric, split)
        if found is not None:
            yield found


def read_ended(folder: Path, metric: str, split: str) -> Ended | None:
    """The trial in `folder`, None if it has not ended, or its files are torn."""
    try:
        result = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        told = json.loads((folder / POINT).read_text(encoding="utf-8"))
        score = float(result["scores"][split][metric])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    point = Point(told["params"], int(told["seed"]))
    cost = read_cost(folder)
    # What the winner was made to predict afterwards must not decide, among equals, who the winner is.
    seconds = cost["seconds"] - cost.get(COMPLETING, 0.0)
    return Ended(folder, point, score, int(result["best_epoch"]), seconds, result)


@dataclass(frozen=True)
class Known:
    """A trial that was begun, whatever became of it.

    Attributes:
        outcome: finished, stopped, failed, or "" for one that has not ended.
        score: the best so far on the split that is chosen by; None if no epoch of it ended.
        seconds: as it has taken.
        epochs: that have ended.
    """

    point: Point
    outcome: str
    score: float | None
    seconds: float
    epochs: int = 0


def known_trials(trials: Path, metric: str, split: str) -> Iterator[Known]:
    """Every trial in a sweep's folder, in the order of their names."""
    for path in sorted(trials.glob(f"*/{POINT}")):
        folder = path.parent
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            point = Point(told["params"], int(told["seed"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if (ended := read_ended(folder, metric, split)) is not None:
            yield Known(point, "finished", ended.score, ended.seconds)
            continue
        outcome = "stopped" if was_stopped(folder) else "failed" if read_failure(folder) else ""
        scores = [each["scores"][metric] for each in epochs_in(folder) if metric in each["scores"]]
        yield Known(point, outcome, max(scores, default=None), read_cost(folder)["seconds"], len(scores))


def epochs_in(folder: Path) -> list[dict[str, Any]]:
    """Scores of the epochs in a trial's journal, the step of each beside them."""
    found: list[dict[str, Any]] = []
    for entry, _ in read(folder / JOURNAL, 0):
        scores = {name[5:]: value for name, value in entry.metrics.items() if name.startswith("eval/")}
        if scores:
            found.append({"step": entry.step, "epoch": len(found) + 1, "scores": scores})
    return found


def has_ended(folder: Path) -> bool:
    """Whether nothing more is trained in a trial's folder, be it finished, stopped or failed for good."""
    return any((folder / name).is_file() for name in ENDINGS)


def write_point(folder: Path, point: Point, **more: Any) -> None:
    """Say in the trial's folder where in the space it lies."""
    content = {"params": point.params, "seed": point.seed, "configuration": point.configuration, **more}
    write_json(folder / POINT, content)


def read_cost(folder: Path) -> dict[str, float]:
    """Seconds, CPU-seconds and GPU-seconds that the trial has taken so far."""
    try:
        return {name: float(value) for name, value in json.loads((folder / COST).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError):
        return {"seconds": 0.0, "cpu_seconds": 0.0, "gpu_seconds": 0.0}


def write_cost(folder: Path, before: Mapping[str, float], seconds: float, cpus: float, gpus: float) -> dict[str, float]:
    """Write down what the trial had cost before, and so many seconds more of its CPUs and GPUs; returns the sum."""
    shares = {"seconds": 1.0, "cpu_seconds": cpus, "gpu_seconds": gpus}
    cost = {**before, **{name: round(before[name] + seconds * share, 3) for name, share in shares.items()}}
    write_json(folder / COST, cost)
    return cost


def read_failure(folder: Path) -> str | None:
    """Why the trial failed for good, None if it did not."""
    try:
        return str(json.loads((folder / FAILURE).read_text(encoding="utf-8"))["message"])
    except (OSError, ValueError, KeyError):
        return None


def was_stopped(folder: Path) -> bool:
    """Whether the trial was stopped as hopeless."""
    return (folder / STOPPED).is_file()


def _digest(params: Params) -> str:
    return hashlib.sha256(json.dumps(dict(params), sort_keys=True).encode()).hexdigest()[:10]


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which JSON and equality of digests want."""
    return value.item() if hasattr(value, "item") else value
