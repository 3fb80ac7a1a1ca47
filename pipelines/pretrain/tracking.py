"""A pre-training run in MLflow: opened, looked at, its model registered."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.pretrain.plan import WorkPlan
from pmlm_core.corpus.manifest import Manifest


def open_sink(plan: WorkPlan, manifest: Manifest) -> Any:
    from pipelines.tracking.code_version import code_version
    from pipelines.tracking.sink import MlflowSink

    tags = {
        **code_version(),
        "stage": "pretrain",
        "blocks": manifest.fingerprint,
        "tokenizer": manifest.tokenizer_fingerprint,
    }
    settled: dict[str, Any] = {"micro_batch_size": plan.micro_batch_size, "threads_per_worker": plan.threads}
    if plan.start is not None:
        settled["init_checkpoint_sha256"] = plan.start.sha256
    params = {**asdict(plan.config), **plan.config.deciding(), **settled}
    config = plan.config
    return MlflowSink(plan.run.path, config.tracking_uri, config.experiment_name, plan.run.name, params, tags)


def has_news(plan: WorkPlan, folder: Path) -> bool:
    """Whether MLflow has not all of a finished run: figures, status, model."""
    from pipelines.tracking.record import Record
    from pipelines.tracking.redact import redact
    from pipelines.tracking.store import NONE, resolve

    uri = resolve(plan.config.tracking_uri)
    if uri == NONE:
        return False
    record = Record.load(plan.run.path)
    if record is None or record.tracking_uri != redact(uri) or not record.delivered or record.status != "FINISHED":
        return True
    return plan.config.register_model is not None and not record.has_registered(plan.config.register_model, folder)


def register_model(plan: WorkPlan, folder: Path) -> None:
    """Register the final checkpoint as an MLflow model, if asked for; a store that is away gets it by `pmlm sync`."""
    config = plan.config
    if config.register_model is None:
        return
    from pipelines.registry.models import register
    from pipelines.tracking.record import Record

    record = Record.load(plan.run.path)
    if record is not None and record.has_registered(config.register_model, folder):
        return
    register(plan.run.path, folder, config.register_model, config.tracking_uri)
