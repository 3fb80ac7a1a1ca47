"""What came out of a run: the table of its seeds, mean, median and spread, and where everything lies."""

from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

from rich.table import Table

from pipelines.console import console
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import SCORES, write_json


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, median, least, largest and standard deviation (of a sample) over seeds: split -> figure -> statistics."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split, scores in results[0]["scores"].items():
        for name in scores:
            values = [float(result["scores"][split][name]) for result in results]
            found.setdefault(split, {})[name] = {
                "mean": mean(values),
                "median": median(values),
                "min": min(values),
                "max": max(values),
                "stdev": stdev(values) if len(values) > 1 else 0.0,
            }
    return found


def write_summary(job: Job, results: Sequence[Mapping[str, Any]]) -> None:
    """The run's own `scores.json`, beside the folders of its seeds."""
    first = results[0]
    content = {
        "task": first["task"],
        "metric": first["metric"],
        "seeds": {str(result["seed"]): result["scores"] for result in results},
        "summary": summary(results),
        "scorers": first["scorers"],
        "rows": first["rows"],
        "pretrained": first["pretrained"],
    }
    write_json(job.run.path / SCORES, content)


def show(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the table: a row a seed and split, then the statistics."""
    metric = results[0]["metric"]
    names = list(dict.fromkeys(name for result in results for scores in result["scores"].values() for name in scores))
    names.sort(key=lambda name: name != metric)
    if not names:
        console().print("no split with labels: nothing to score", markup=False)
        return
    table = Table(title=f"{results[0]['task']}: scores from 0 to 100, epochs chosen by {metric}")
    for heading in ("seed", "split", *names, "best epoch"):
        table.add_column(heading, justify="left" if heading in ("seed", "split") else "right")
    for result in results:
        for split, scores in result["scores"].items():
            if scores:
                epoch = f"{result['best_epoch']} of {len(result['epochs'])}"
                table.add_row(str(result["seed"]), split, *(_cell(scores.get(name)) for name in names), epoch)
    if len(results) > 1:
        for split, scores in summary(results).items():
            for at, statistic in enumerate(("mean", "median", "stdev")):
                cells = [_cell(scores[name][statistic]) if name in scores else "" for name in names]
                table.add_row(statistic, split, *cells, "", end_section=at == 2)
    console().print(table)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
