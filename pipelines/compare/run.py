"""`pmlm compare`: read the runs, find out what won and whether that is more than noise, and say so in three forms."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipelines.compare.comparison import Comparison, compare
from pipelines.compare.config import CompareConfig
from pipelines.compare.runs import Source
from pipelines.compare.table import show
from pipelines.compare.write import CSV, JSON, write
from pipelines.console import made, next_predict, say
from pipelines.output_folder import check_output_dir
from pipelines.tracking.store import is_off
from pmlm_core.errors import ConfigError

PAGE = "index.html"


def run(config: CompareConfig) -> None:
    """Compare, print, and write the page, the JSON and the table.

    Raises:
        ConfigError: nothing fits what was asked for; the message says what there is.
        PmlmError: MLflow does not answer.
    """
    check_output_dir(config.output_dir)
    if not config.folders and is_off(config.tracking_uri):
        raise ConfigError(
            "MLFLOW_TRACKING_URI=none in the environment switches MLflow off: name the store, --tracking_uri "
            "sqlite:///mlflow.db, or the folders of the runs, pmlm compare --folders outputs/finetune"
        )
    if not (config.benchmark or config.sweep or config.experiment or config.runs or config.folders):
        say("comparing all runs that MLflow has; a benchmark (pmlm compare rte), --sweep or --runs narrows it")
    with _source(config) as source:
        comparisons = compare(source, config)
    for comparison in comparisons:
        show(comparison, config.group_by)
    output = Path(config.output_dir)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir {output} cannot be made: {error.strerror}") from None
    write(comparisons, str(output))
    from pipelines.compare.page.build import write_page

    write_page(comparisons, config, output / PAGE)
    say("")
    made("table of runs", str(output / CSV))
    made("comparison for programs", str(output / JSON))
    made("comparison page", str(output / PAGE))
    say(f"open it in a browser: {(output / PAGE).absolute().as_uri()}")
    for comparison in comparisons:
        _next(comparison)


@contextmanager
def _source(config: CompareConfig) -> Iterator[Source]:
    if config.folders:
        from pipelines.compare.folder_source import FolderSource

        with closing(FolderSource(config)) as source:
            yield source
    else:
        from pipelines.compare.mlflow_source import MlflowSource

        yield MlflowSource(config)


def _next(comparison: Comparison) -> None:
    """How to use the winner, where it is known where its model is."""
    best = comparison.best
    if best is None:
        return
    ordered = sorted(best.best.scored, key=lambda trial: -comparison.section.sign * (trial.score or 0.0))
    place = next(filter(None, (trial.run.model for trial in ordered)), None)
    if place is not None:
        next_predict(place)
