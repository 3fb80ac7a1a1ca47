"""The comparison as files: `comparison.csv`, a row a run, and `comparison.json`, everything by benchmark and group."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.compare.comparison import Comparison, headline, how, in_full, verdict
from pipelines.compare.differences import Difference
from pipelines.compare.groups import Group
from pipelines.compare.sections import OPTION_NAMES
from pmlm_core import storage

CSV, JSON = "comparison.csv", "comparison.json"
FORMAT_VERSION = 1

_COLUMNS = (
    *("benchmark", "rank", "group", "group_mean", "group_stdev", "group_seeds", "difference", "low", "high", "p"),
    *("p_holm", "seeds_p_holm", "test", "verdict", "run_id", "run_name", "outcome", "reason", "metric", "split"),
    *("score", "counted", "seed", "seconds", "gpu_seconds", "sweep", "strategy", "phase", "model", "model_sha256"),
)


def write(comparisons: list[Comparison], output_dir: str) -> None:
    """Write both files, each whole or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, [*_COLUMNS, *OPTION_NAMES], lineterminator="\n")
    table.writeheader()
    for comparison in comparisons:
        for row in rows(comparison):
            table.writerow({name: _safe(value) for name, value in row.items()})
    _put(Path(output_dir) / CSV, text.getvalue())
    content = {"format_version": FORMAT_VERSION, "benchmarks": [as_json(each) for each in comparisons]}
    _put(Path(output_dir) / JSON, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One a run, best group first; `counted`: whether the group's mean is of it."""
    section, found = comparison.section, []
    for rank, (group, difference) in enumerate(zip(comparison.groups, comparison.differences, strict=True), 1):
        best = group.best
        counted = {trial.run.id for trial in best.scored}
        of_group = {
            "benchmark": section.name,
            "rank": rank,
            "group": group.label,
            "group_mean": best.mean,
            "group_stdev": best.stdev,
            "group_seeds": len(best.scores),
            "metric": section.metric,
            "split": section.split,
            "verdict": verdict(difference),
        }
        if difference is not None:
            of_group |= {"difference": difference.points, "low": difference.low, "high": difference.high}
            of_group |= {"p": difference.p, "p_holm": difference.holm, "seeds_p_holm": difference.seeds_holm}
            of_group |= {"test": difference.test}
        for trial in group.trials:
            run = trial.run
            of_run = {
                "run_id": run.id,
                "run_name": run.name,
                "outcome": run.outcome,
                "reason": run.reason,
                "score": trial.score,
                "counted": run.id in counted,
                "seed": run.seed,
                "seconds": run.seconds,
                "gpu_seconds": run.gpu_seconds,
                "sweep": run.tags.get("sweep"),
                "strategy": run.tags.get("strategy"),
                "phase": run.tags.get("phase"),
                "model": run.tags.get("pretrained.path") or run.params.get("model"),
                "model_sha256": run.tags.get("pretrained.sha256"),
            }
            found.append({**of_group, **of_run, **trial.options})
    return found


def as_json(comparison: Comparison) -> dict[str, Any]:
    """One benchmark."""
    section = comparison.section
    return {
        "benchmark": section.name,
        "task": section.task,
        "metric": section.metric,
        "split": section.split,
        "mode": section.mode,
        "headline": headline(comparison),
        "runs": comparison.counts(),
        "searched": list(section.searched),
        "baseline": section.baseline,
        "groups": [
            {**_group(group), "difference": None if each is None else _difference(each)}
            for group, each in zip(comparison.groups, comparison.differences, strict=True)
        ],
        "published": [
            {"model": each.model, "split": each.split, "figures": dict(each.figures)} for each in comparison.published
        ],
        "sweeps": [
            {"id": run.id, "sweep": run.tags.get("sweep"), "strategy": run.tags.get("strategy"), "status": run.status}
            for run in section.sweeps
        ],
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {**asdict(difference), "verdict": in_full(difference), "how": how(difference)}


def _group(group: Group) -> dict[str, Any]:
    best = group.best
    return {
        "label": group.label,
        "outcome": best.outcome,
        "confirmed": best.confirmed,
        "mean": best.mean,
        "median": group.median,
        "stdev": best.stdev,
        "seeds": [trial.run.seed for trial in best.scored],
        "scores": best.scores,
        "seconds": group.seconds,
        "configurations": len(group.configurations),
        "options": dict(best.trials[0].options),
        "runs": [
            {
                "id": trial.run.id,
                "name": trial.run.name,
                "outcome": trial.run.outcome,
                "reason": trial.run.reason,
                "score": trial.score,
                "seed": trial.run.seed,
                "seconds": trial.run.seconds,
            }
            for trial in group.trials
        ],
    }


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one is quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _put(path: Path, text: str) -> None:
    storage.write_bytes(str(path), text.encode())
