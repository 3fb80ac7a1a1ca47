"""What came out of a run: the table of its seeds, mean, median and spread, and where everything lies."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

from rich.table import Table

from pipelines.console import console, say
from pipelines.finetune.job import Job
from pipelines.finetune.rundir import SCORES, write_json


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, median, least, largest and standard deviation (of a sample) over seeds: split -> figure -> statistics.

    Only of what every seed has: a test file may have come later, METEOR may lack Java on one machine.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split, scores in results[0]["scores"].items():
        for name in scores:
            if not all(name in result["scores"].get(split, {}) for result in results):
                continue
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
        "baselines": baselines_of(results),
        "scorers": first["scorers"],
        "rows": first["rows"],
        "pretrained": first["pretrained"],
    }
    write_json(job.run.path / SCORES, content)


def show(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the table: a row a split and figure, a column a seed, then the statistics."""
    metric = results[0]["metric"]
    statistics = ("mean", "median", "stdev") if len(results) > 1 else ()
    table = Table(title=f"{results[0]['task']}: scores from 0 to 100, epochs chosen by {metric}")
    table.add_column("split")
    table.add_column("figure")
    for result in results:
        table.add_column(f"seed {result['seed']}", justify="right")
    for statistic in statistics:
        table.add_column(statistic, justify="right")
    over_seeds, baselines = summary(results), baselines_of(results)
    if baselines:
        table.add_column("baseline", justify="right")
    for split, figures in over_seeds.items():
        for name in ordered(figures, metric):
            values = [result["scores"][split][name] for result in results]
            found = [figures[name][statistic] for statistic in statistics]
            shown = [f"{value:.2f}" for value in [*values, *found]]
            known = baselines.get(split, {}).get("scores", {})
            table.add_row(split, name, *shown, *([f"{known[name]:.2f}"] if name in known else []))
    epochs = [f"{result['best_epoch']} of {len(result['epochs'])}" for result in results]
    table.add_row("", "best epoch", *epochs)
    console().print(table)
    for what, splits in baselines_in_words(baselines).items():
        say(f"baseline, {', '.join(splits)}: {what}")


def baselines_of(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scores of the trivial baseline, by split; the same for every seed, and lacking in one trained long ago."""
    return {split: each for result in results for split, each in result.get("baselines", {}).items()}


def baselines_in_words(baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Trivial baseline that is scored beside the model -> the splits it is of."""
    found: dict[str, list[str]] = {}
    for split, each in baselines.items():
        found.setdefault(each["what"], []).append(split)
    return found


def ordered(figures: Iterable[str], metric: str) -> list[str]:
    """Figures with the metric first; counts and thresholds, which are no scores, left out.

    >>> ordered(["exact", "f1", "total", "best_f1_thresh"], "f1")
    ['f1', 'exact']
    """
    shown = [name for name in figures if not name.endswith(("total", "_thresh"))]
    return sorted(shown, key=lambda name: name != metric)
