"""Runs from MLflow: chosen by experiment, sweep or id; histories and files only of the runs they are asked of."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.compare.config import CompareConfig
from pipelines.compare.runs import FINETUNE, SWEEP, TRIAL, Curve, Run, by_epoch
from pipelines.console import counted, say, warn
from pipelines.finetune.rundir import MODEL
from pipelines.run_folder import RUN_FILE
from pipelines.run_place import named_by
from pipelines.tracking.delivery import PARENT_TAG, RUN_KEY_TAG
from pipelines.tracking.record import Record
from pipelines.tracking.redact import redact
from pipelines.tracking.store import resolve, set_client_defaults, sqlite_file
from pmlm_core.errors import ConfigError, PmlmError

_PAGE = 1000  # runs a call; MLflow gives no more


class MlflowSource:
    """A store, and what of it was chosen."""

    def __init__(self, config: CompareConfig) -> None:
        """Connect.

        Raises:
            ConfigError: there is no such store.
        """
        uri = resolve(config.tracking_uri)
        database = sqlite_file(uri)
        if database is not None and not database.is_file():  # MLflow would make an empty one
            raise ConfigError(
                f"there is no MLflow store {database}; name it with --tracking_uri or MLFLOW_TRACKING_URI, or read the "
                "runs' folders: pmlm compare --folders outputs/finetune outputs/sweep"
            )
        set_client_defaults()
        from mlflow import MlflowClient

        self._uri, self._config = uri, config
        self._client: Any = MlflowClient(tracking_uri=uri)

    def runs(self) -> list[Run]:
        """See `Source.runs`."""
        from mlflow.exceptions import MlflowException

        try:
            found = {run.info.run_id: run for run in self._chosen()}
        except MlflowException as error:
            raise PmlmError(
                f"MLflow at {redact(self._uri)} does not answer as it should: {_words(error)}; is it running there?"
            ) from None
        plain = [_plain(run) for run in found.values()]
        if self._config.runs:
            return plain
        replaced = {key for key, run in found.items() if _was_replaced(run)}
        for run in plain:
            if run.id in replaced:
                trials = sum(each.parent == run.id for each in plain)
                say(
                    f"sweep {run.name} was removed and begun again; left out: {counted(trials, 'trial')} of before "
                    f"(--runs {run.id} takes what is left out)"
                )
        return [run for run in plain if run.id not in replaced and run.parent not in replaced]

    def history(self, run: Run, figure: str) -> Curve:
        """See `Source.history`."""
        points = self._client.get_metric_history(run.id, f"eval/{figure}")
        return by_epoch([(point.step, point.value) for point in points])

    def paired(self, run: Run, split: str) -> dict[str, Any] | None:
        """See `Source.paired`; a file that cannot be fetched is told and counts as none."""
        wanted = f"paired/{split}.json"
        try:
            if wanted not in {file.path for file in self._client.list_artifacts(run.id, "paired")}:
                return None
            with tempfile.TemporaryDirectory() as folder:
                path = self._client.download_artifacts(run.id, wanted, folder)
                content = json.loads(Path(path).read_text(encoding="utf-8"))
        except Exception as error:  # every store of artifacts has errors of its own
            warn(f"{wanted} of run {run.name} cannot be fetched: {_words(error)}")
            return None
        return content if isinstance(content, dict) else None

    def _chosen(self) -> Iterator[Any]:
        config = self._config
        yield from self._by_id(config.runs)
        if config.runs and not (config.benchmark or config.experiment or config.sweep):
            return
        experiments = self._experiments()
        names = [*config.experiment, *(f"pmlm-{name}" for name in config.benchmark if not config.experiment)]
        unknown = [name for name in names if name not in experiments]
        if unknown and not config.runs:
            with_runs = ", ".join(name for name, key in experiments.items() if next(self._search([key]), None))
            raise ConfigError(
                f"MLflow at {redact(self._uri)} has no experiment {_listed(unknown)}; "
                f"experiments with runs to compare, for --experiment: {with_runs or 'none'}"
            )
        keys = [experiments[name] for name in names if name in experiments] if names else list(experiments.values())
        found = False
        for run in self._search(keys, config.sweep):
            found = True
            yield run
        if not found and not config.runs:
            raise ConfigError(self._nothing(names, keys, experiments))

    def _nothing(self, names: list[str], keys: list[str], experiments: dict[str, str]) -> str:
        where = f"experiment {_listed(names)}" if names else f"MLflow at {redact(self._uri)}"
        if self._config.sweep:
            sweeps = sorted({run.data.tags["sweep"] for run in self._search(keys) if "sweep" in run.data.tags})
            return f"{where} has no trial of sweep {_listed(self._config.sweep)}; sweeps: {', '.join(sweeps) or 'none'}"
        return (
            f"{where} has no run of pmlm finetune or pmlm sweep; experiments: {', '.join(experiments) or 'none'}. "
            "Is it another store? Name it with --tracking_uri, or read the runs' folders with --folders"
        )

    def _experiments(self) -> dict[str, str]:
        """Name -> id of every experiment that is not deleted."""
        found, token = {}, None
        while True:
            page = self._client.search_experiments(max_results=_PAGE, page_token=token)
            found.update({experiment.name: experiment.experiment_id for experiment in page})
            token = page.token
            if not token:
                return dict(sorted(found.items()))

    def _search(self, experiments: list[str], sweeps: list[str] | tuple[str, ...] = ()) -> Iterator[Any]:
        """Trials, sweeps and seeds of these experiments, page by page."""
        stages = (TRIAL, SWEEP) if sweeps else (FINETUNE, TRIAL, SWEEP)
        for stage in stages:
            for sweep in sweeps or (None,):
                choice = f"tags.stage = '{stage}'" + ("" if sweep is None else f" AND tags.sweep = {_quoted(sweep)}")
                yield from self._pages(experiments, choice)

    def _pages(self, experiments: list[str], choice: str) -> Iterator[Any]:
        token = None
        while experiments:
            page = self._client.search_runs(experiments, choice, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _by_id(self, ids: list[str]) -> Iterator[Any]:
        from mlflow.exceptions import MlflowException

        for key in ids:
            try:
                run = self._client.get_run(key)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                raise ConfigError(
                    f"MLflow at {redact(self._uri)} has no run {key}; ids are the 32 letters and digits that its pages "
                    "show as Run ID"
                ) from None
            stage = run.data.tags.get("stage", "none")
            if stage not in (FINETUNE, TRIAL, SWEEP):
                raise ConfigError(f"run {key} is no run of pmlm finetune or pmlm sweep: its stage is {stage}")
            yield run
            if stage == SWEEP:
                yield from self._pages([run.info.experiment_id], f"tags.`{PARENT_TAG}` = '{key}'")


def _was_replaced(sweep: Any) -> bool:
    """Whether the sweep's folder was removed and is another one's now: together they would count as one sweep."""
    params, tags = sweep.data.params, sweep.data.tags
    if tags.get("stage") != SWEEP or "output_dir" not in params or RUN_KEY_TAG not in tags:
        return False
    try:
        record = Record.load(Path(params["output_dir"], tags["sweep"], tags["benchmark"]))
    except (PmlmError, OSError, KeyError):
        return False
    return record is not None and record.run_key != tags[RUN_KEY_TAG]


def _plain(run: Any) -> Run:
    info, data = run.info, run.data
    folder = _folder(data.params, data.tags)
    return Run(
        id=info.run_id,
        name=info.run_name or info.run_id,
        params=dict(data.params),
        tags={
            name: value for name, value in data.tags.items() if not name.startswith("mlflow.") and name != RUN_KEY_TAG
        },
        metrics=dict(data.metrics),
        status=info.status,
        start=info.start_time and info.start_time / 1000,
        end=info.end_time and info.end_time / 1000,
        parent=data.tags.get(PARENT_TAG),
        folder=folder,
        model=_model(folder, data.params),
    )


def _folder(params: dict[str, str], tags: dict[str, str]) -> str | None:
    """Where the run's folder is by what MLflow knows of it, if this is the machine it is on."""
    output = params.get("output_dir")
    if output is None:
        return None
    if "trial" in tags:
        folder = Path(output, tags.get("sweep", ""), tags.get("benchmark", ""), "trials", tags["trial"])
    else:
        folder = Path(output, tags.get("finetune_run", ""), f"seed-{params.get('seed')}")
    return str(folder) if (folder / RUN_FILE).is_file() else None


def _model(folder: str | None, params: dict[str, str]) -> str | None:
    """Where the model in a run's folder is, if there is one: its address, if the run lies in a store."""
    model = None if folder is None else Path(folder) / MODEL
    if model is None or not model.is_dir():
        return None
    return named_by(params.get("output_dir", ""), params.get("upload_dir"), model)


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _quoted(text: str) -> str:
    """A text in MLflow's filter language, which has no escapes: in whichever quotes it does not hold.

    Raises:
        ConfigError: it holds both.
    """
    for quote in ("'", '"'):
        if quote not in text:
            return f"{quote}{text}{quote}"
    raise ConfigError(f"sweep {text}: MLflow cannot look for a name with both kinds of quotes")


def _words(error: Exception) -> str:
    return redact(" ".join(str(error).split()))[:300]
