"""Register a checkpoint as an MLflow model that `mlflow.pyfunc.load_model` loads where pmlm was never installed.

The model carries the checkpoint folder and the code that it needs; no pickle is written. A fine-tuned folder predicts,
any other fills masks, see `forms.py`. A store that is away costs the registration nothing but time: it is noted in the
run's record, and `pmlm sync` does it later.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.console import made
from pipelines.console import warn as console_warn
from pipelines.tracking.forms import Form, form_of
from pipelines.tracking.patience import Attempt
from pipelines.tracking.record import Record
from pipelines.tracking.redact import redact
from pipelines.tracking.store import NONE, resolve, set_client_defaults
from pipelines.variables import set_for_a_while
from pmlm_core.errors import CheckpointError


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
    already is not registered again; only what is said of the version, and the alias, are set anew.

    Args:
        alias: a name for the version, taken from the version that has it now: "champion".

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
        return _once(Path(run_dir), record, Path(wanted["checkpoint"]), wanted["name"], uri, wanted.get("alias"))

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


def _once(run_dir: Path, record: Record, checkpoint: Path, name: str, uri: str, alias: str | None) -> str:
    """The version of model `name` that this run made before, its answer lost on the way, or a new one."""
    set_client_defaults()
    import mlflow

    client, run_id = mlflow.MlflowClient(uri, uri), str(record.run_id)
    versions = [v for v in client.search_model_versions(f"run_id = '{run_id}'") if v.name == name]
    ready = [int(v.version) for v in versions if v.status == "READY"]
    try:
        form = form_of(checkpoint)
        version = max(ready) if ready else _log_model(run_dir, run_id, checkpoint, name, uri, form)
        _describe(client, name, str(version), form, alias)
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


def _describe(client: Any, name: str, version: str, form: Form, alias: str | None) -> None:
    client.update_model_version(name, version, description=form.description)
    for tag, value in form.tags.items():
        client.set_model_version_tag(name, version, tag, redact(value))
    if alias is not None:
        client.set_registered_model_alias(name, alias, version)


def _log_model(run_dir: Path, run_id: str, checkpoint: Path, name: str, uri: str, form: Form) -> int:
    import mlflow

    from pmlm_core.training.checkpoint import TRAINING_FILES

    requirements = [f"{package}=={version(package).partition('+')[0]}" for package in ("mlflow", *form.requirements)]
    with (
        _mlflow_at(uri),
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
            registered_model_name=name,
        )
    return int(info.registered_model_version)


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
