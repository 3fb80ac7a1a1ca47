"""Register a checkpoint as an MLflow model that `mlflow.pyfunc.load_model` loads where pmlm was never installed.

The model carries the checkpoint folder and the code that it needs; no pickle is written. A fine-tuned folder predicts,
any other fills masks, see `forms.py`. A store that is away costs the registration nothing but time: it is noted in the
run's record, and `pmlm sync` does it later.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.console import made, say
from pipelines.console import warn as console_warn
from pipelines.registry.forms import Form, form_of
from pipelines.tracking.patience import Attempt
from pipelines.tracking.record import Record, fingerprint
from pipelines.tracking.redact import redact
from pipelines.tracking.store import NONE, resolve, set_client_defaults
from pipelines.variables import set_for_a_while
from pmlm_core.errors import CheckpointError
from pmlm_core.tasks.scores.versions import others

_DATA = "data."
"""Tags of a run begin so that are fingerprints of its splits."""
_SCORERS, _MOST_ROWS = "scorers", "max_predict_rows"
"""A run's tag of what scored it, and its parameter of how many rows of a split were; tags of a version, both."""


def register(
    run_dir: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    name: str,
    tracking_uri: str | None,
    alias: str | None = None,
    *,
    timeout: float = 300.0,
    warn: Callable[[str], None] = console_warn,
) -> str | None:
    """Register the checkpoint of a finished run as the next version of model `name`.

    Call it on the driver, after the run's sink has finished. A checkpoint that this run has registered under that name
    already is not registered again; only what is said of the version is set anew, and the alias.

    Args:
        alias: a name for the version, taken from the version that has it now: "champion". One that has a better score
            on the same data keeps it, and a warning says so.

    Returns:
        "NAME version N", or None (after a warning) if the store is away or takes longer than `timeout` seconds; then
        `pmlm sync` repeats it.

    Raises:
        CheckpointError: `checkpoint` is no folder with a model.
        ConfigError: `tracking_uri` is no MLflow store.
    """
    if not (Path(checkpoint) / "config.json").is_file():
        raise CheckpointError(
            f"{checkpoint} holds no model (no config.json), so there is nothing to register as {name}"
        )
    uri = resolve(tracking_uri)
    record = Record.load(run_dir)
    if uri == NONE or record is None:
        return None
    record.pending_model = {"name": name, "checkpoint": str(Path(checkpoint).absolute())}
    if alias is not None:
        record.pending_model["alias"] = alias
    record.save(run_dir)
    return register_pending(run_dir, uri, timeout=timeout, warn=warn)


def register_pending(
    run_dir: str | os.PathLike[str],
    uri: str,
    *,
    timeout: float = 300.0,
    warn: Callable[[str], None] = console_warn,
) -> str | None:
    """Do the registration that the run's record asks for; see `register`."""
    record = Record.load(run_dir)
    if record is None or not record.pending_model:
        return None
    wanted = record.pending_model

    def work() -> str:
        if not (Path(wanted["checkpoint"]) / "config.json").is_file():
            raise RuntimeError(f"{wanted['checkpoint']} holds no model (no config.json)")
        if not record.run_id:
            raise RuntimeError("the run itself has not reached MLflow yet")
        return _once(Path(run_dir), record, uri, warn)

    attempt = Attempt(work, timeout, "mlflow-register")
    registered = attempt.result
    if registered is None:
        warn(
            f"model {wanted['name']} is not registered in MLflow ({attempt.failure}); the checkpoint itself is safe. "
            f"To register it later: pmlm sync --run_dir {run_dir}"
        )
        return None
    record.pending_model, record.registered = None, {**wanted, "model": registered}
    record.save(run_dir)
    made("MLflow model", registered)
    return registered


def _once(run_dir: Path, record: Record, uri: str, warn: Callable[[str], None]) -> str:
    """The version of the model that this run made before, its answer lost on the way, or a new one."""
    set_client_defaults()
    import mlflow

    assert record.pending_model is not None
    name, checkpoint = record.pending_model["name"], Path(record.pending_model["checkpoint"])
    client, run_id = mlflow.MlflowClient(uri, uri), str(record.run_id)
    versions = [v for v in client.search_model_versions(f"run_id = '{run_id}'") if v.name == name]
    ready = [int(v.version) for v in versions if v.status == "READY"]
    try:
        form = form_of(checkpoint)
        version = max(ready) if ready else _log_model(client, run_dir, run_id, checkpoint, name, uri, form)
        tags = _describe(client, name, str(version), form, record)
        if (alias := record.pending_model.get("alias")) is not None:
            _give_alias(client, name, alias, str(version), tags, warn)
    except BaseException:
        with contextlib.suppress(Exception):  # the store may be away; `pmlm sync` comes here again
            _end_as_before(client, record)
        raise
    _end_as_before(client, record)
    return f"{name} version {version}"


def _end_as_before(client: Any, record: Record) -> None:
    """Give the run the status it ended with: logging a model makes it RUNNING, then FINISHED, or FAILED on an error."""
    if record.status != "RUNNING":
        client.set_terminated(record.run_id, status=record.status)


def _describe(client: Any, name: str, version: str, form: Form, record: Record) -> dict[str, str]:
    """Say of the version what it is, which data its score is of and what scored it; returns its tags."""
    client.update_model_version(name, version, description=form.description)
    told = {tag: value for tag, value in record.tags.items() if tag.startswith(_DATA) or tag == _SCORERS}
    told |= {name: value for name, value in record.params.items() if name == _MOST_ROWS}
    tags = {tag: redact(value) for tag, value in {**told, **form.tags}.items()}
    for tag, value in tags.items():
        client.set_model_version_tag(name, version, tag, value)
    return tags


def _give_alias(
    client: Any, name: str, alias: str, version: str, tags: Mapping[str, str], warn: Callable[[str], None]
) -> None:
    """Move the alias here, unless the version that has it scored better on the same examples, by the same scorers:
    whoever loads a model by its alias is not to be given a worse one by a sweep of fewer trials, or of yesterday."""
    holder = client.get_registered_model(name).aliases.get(alias)
    if holder is not None and str(holder) == version:
        return
    ahead = None if holder is None else _ahead(client.get_model_version(name, str(holder)).tags, tags)
    if ahead is None:
        client.set_registered_model_alias(name, alias, version)
        say(f"{name}@{alias} is version {version} now{'' if holder is None else f'; it was version {holder}'}")
        return
    by_hand = f"mlflow.MlflowClient().set_registered_model_alias({name!r}, {alias!r}, '{version}')"
    warn(
        f"version {version} of {name} is registered without the alias {alias}: version {holder}, which has it, is "
        f'better on the same data ({ahead}). To move it by hand: python -c "import mlflow; {by_hand}", with '
        "MLFLOW_TRACKING_URI set"
    )


def _ahead(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """By how much the version with these tags is better than the other; None if it is not, or that cannot be said."""
    name = next((tag for tag in here if tag.endswith(f".{here.get('metric')}")), None)
    if name is None or name not in there:
        return None
    if not _comparable(there, here, _DATA + name.partition(".")[0]) or float(there[name]) <= float(here[name]):
        return None
    return f"{name} {float(there[name]):.2f}, and {float(here[name]):.2f} here"


def _comparable(there: Mapping[str, str], here: Mapping[str, str], data: str) -> bool:
    """Whether both scores are of the same rows of the same split and by the same scorers. Versions of before say
    neither how many rows nor which scorers: they are taken to be of all, and by the same."""
    if data not in here or data not in there or fingerprint(here[data]) != fingerprint(there[data]):
        return False
    if here.get(_MOST_ROWS, "None") != there.get(_MOST_ROWS, "None"):
        return False
    try:
        return not others(json.loads(here.get(_SCORERS, "{}")), json.loads(there.get(_SCORERS, "{}")))
    except ValueError:  # anybody may set a version's tags
        return False


def _log_model(client: Any, run_dir: Path, run_id: str, checkpoint: Path, name: str, uri: str, form: Form) -> int:
    import mlflow
    from mlflow.exceptions import MlflowException

    from pmlm_core.training.checkpoint import TRAINING_FILES

    requirements = [f"{package}=={version(package).partition('+')[0]}" for package in ("mlflow", *form.requirements)]
    with _mlflow_at(uri):
        with (
            # In the run's folder, mostly on the checkpoint's disk: MLflow follows no link out of what it is given.
            tempfile.TemporaryDirectory(prefix=".register-", dir=run_dir) as folder,
            mlflow.start_run(run_id=run_id, log_system_metrics=False),
        ):
            for path in checkpoint.iterdir():
                if path.name not in TRAINING_FILES:
                    _place(path.resolve(), Path(folder) / path.name)
            info = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(Path(__file__).with_name(form.program)),
                artifacts={"checkpoint": folder},
                code_paths=[str(Path(str(package.__file__)).parent) for package in form.packages],
                pip_requirements=requirements,
                signature=form.signature,
                input_example=form.input_example,
            )
        # Not by log_model's registered_model_name, which prints lines of its own whatever its log level is.
        with contextlib.suppress(MlflowException):  # it is there; if it is not, the next line says why
            client.create_registered_model(name)
        created = client.create_model_version(name, info.model_uri, run_id, model_id=info.model_id)
        _tell_logged_model(client, info.model_id, name, created.version)
    return int(created.version)


def _tell_logged_model(client: Any, model_id: str, name: str, version: Any) -> None:
    """Say on the logged model which version it is registered as, by which MLflow's pages link the two; as MLflow's own
    `register_model` does at its end."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    before = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS) or "[]")
    said = json.dumps([*before, {"name": name, "version": version}])
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: said})


@contextlib.contextmanager
def _mlflow_at(uri: str) -> Iterator[None]:
    """MLflow's own idea of the store, which logging a model takes no argument for.

    It writes that into the environment too, where it would look like the user's word for every later run of this
    process, and be handed to every process that it starts.
    """
    import mlflow

    with set_for_a_while({"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield


def _place(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the disk has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
