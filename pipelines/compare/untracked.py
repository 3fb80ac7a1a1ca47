"""A run that was never meant for MLflow (tracking_uri "none"): what its own files say of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.compare.runs import FINETUNE, SWEEP, TRIAL
from pipelines.finetune.rundir import SCORES
from pipelines.run_folder import RUN_FILE
from pipelines.sweep.course import RESULT, TRIALS
from pipelines.sweep.trials import COST, FAILURE, POINT, was_stopped


def untracked(folder: Path, named: Callable[[Path], str] = str) -> dict[str, Any] | None:
    """Fields of a `Run`, metrics and times aside; None where it is neither a sweep nor part of one nor a fine-tuning.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    told = _json(folder / RUN_FILE) or {}
    identity = told.get("identity") or {}
    options = identity.get("options") or {}
    if "strategy" in options and "finetune.learning_rate" in options:
        return _sweep(folder, options, named)
    if not {"learning_rate", "num_train_epochs"} <= options.keys() or "seed" not in told:
        return None
    result = _json(folder / SCORES) or {}
    pretrained = {f"pretrained.{name}": str(value) for name, value in (result.get("pretrained") or {}).items() if value}
    start = (identity.get("model") or [None])[0]
    if start:
        pretrained.setdefault("pretrained.sha256", str(start))
    tags = {"stage": FINETUNE, "task": str(options.get("task", result.get("task", "unknown"))), **pretrained}
    tags |= {f"data.{name}": str(value) for name, value in (identity.get("data") or {}).items()}
    if "metric" in result:
        tags["metric"] = str(result["metric"])
    if "scorers" in result:
        tags["scorers"] = json.dumps(result["scorers"])
    run: dict[str, Any] = {
        "id": named(folder),
        "name": f"{folder.parent.name}-seed-{told['seed']}",
        "params": {**{name: str(value) for name, value in options.items()}, "seed": str(told["seed"])},
        "tags": tags,
        "status": "FINISHED" if result else "RUNNING",
        "parent": None,
    }
    if folder.parent.name == TRIALS:
        return _as_trial(folder, run, named)
    return run


def _as_trial(folder: Path, run: dict[str, Any], named: Callable[[Path], str]) -> dict[str, Any]:
    """What the folders of a sweep add to a trial: SWEEP/BENCHMARK/trials/TRIAL."""
    benchmark = folder.parent.parent
    above = (_json(benchmark / RUN_FILE) or {}).get("identity", {}).get("options", {})
    point, failure = _json(folder / POINT) or {}, _json(folder / FAILURE)
    outcome = "finished" if run["status"] == "FINISHED" else "stopped" if was_stopped(folder) else ""
    if not outcome and failure is None and (benchmark / RESULT).is_file():  # the sweep has ended, and says nothing
        failure = {"message": "its process was lost"}
    if not outcome and failure is not None:
        outcome = "failed"
    tags = {
        "stage": TRIAL,
        "benchmark": benchmark.name,
        "sweep": benchmark.parent.name,
        "strategy": str(above.get("strategy", "")),
        "configuration": str(point.get("configuration", "")),
        "searched": json.dumps(list(above.get("searched") or ())),
        "outcome": outcome,
        "failure": str((failure or {}).get("message", "")),
    }
    run["tags"] |= {name: value for name, value in tags.items() if value}
    return {**run, "name": folder.name, "parent": named(benchmark)}


def _sweep(folder: Path, options: dict[str, Any], named: Callable[[Path], str]) -> dict[str, Any]:
    tags = {
        "stage": SWEEP,
        "benchmark": folder.name,
        "sweep": folder.parent.name,
        "strategy": str(options["strategy"]),
        "searched": json.dumps(list(options.get("searched") or ())),
    }
    status = "FINISHED" if (folder / RESULT).is_file() else "RUNNING"
    return {
        "id": named(folder), "name": folder.parent.name, "params": {}, "tags": tags, "status": status, "parent": None
    }  # fmt: skip


def costs(folder: Path) -> dict[str, float]:
    """What a trial says that it has cost, as figures; empty where it says nothing."""
    try:
        return {f"cost/{name}": float(value) for name, value in (_json(folder / COST) or {}).items()}
    except (OSError, ValueError):
        return {}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content if isinstance(content, dict) else None
