"""`pmlm plan`: a line for each number of GPUs, and under the table what each wants changed in the recipe."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.console import made, say
from pipelines.plan import text
from pipelines.plan.advice import advice, bottleneck
from pipelines.plan.cluster import Cluster, cluster_of
from pipelines.plan.config import PlanConfig
from pipelines.plan.corpus import Corpus, corpus_of
from pipelines.plan.recipe import Planned, read_recipe
from pipelines.plan.step import Step, evaluation_seconds, step_on
from pmlm_core import storage
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class Line:
    """Pre-training on one number of GPUs, or why it cannot be."""

    gpus: int
    step: Step | None = None
    hours: float = 0.0
    gpu_hours: float = 0.0
    dollars: float = 0.0
    bottleneck: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Plan:
    """All that `pmlm plan` says."""

    planned: Planned
    cluster: Cluster
    corpus: Corpus | None
    lines: list[Line]


def run(config: PlanConfig) -> None:
    """Print the plan, and write it as JSON if asked to.

    Raises:
        ConfigError: the recipe cannot be read, the GPU is unknown, or no number of GPUs can train it.
    """
    plan = make(config)
    for line in text.lines(config, plan):
        say(line)
    if config.json is not None:
        storage.write_bytes(config.json, (json.dumps(as_json(config, plan), indent=1) + "\n").encode())
        made("plan", config.json)
    if all(line.step is None for line in plan.lines):
        raise ConfigError("on none of these numbers of GPUs can the recipe be trained; the lines above say why")


def make(config: PlanConfig) -> Plan:
    """Reckon.

    Raises:
        ConfigError: as `run`, but for numbers of GPUs that cannot train it: their lines say why.
    """
    planned = read_recipe(config)
    cluster = cluster_of(config, "bf16" if planned.bf16 else "fp32")
    lines = [_line(config, planned, cluster, gpus) for gpus in config.gpus]
    return Plan(planned, cluster, corpus_of(config, planned), lines)


def _line(config: PlanConfig, planned: Planned, cluster: Cluster, gpus: int) -> Line:
    try:
        step = step_on(planned, cluster, gpus)
    except ConfigError as error:
        return Line(gpus, bottleneck="impossible", advice=str(error))
    seconds = planned.pretrain.max_steps * step.seconds + evaluation_seconds(planned, cluster, gpus)
    hours = seconds / 3600
    return Line(
        gpus=gpus,
        step=step,
        hours=hours,
        gpu_hours=hours * gpus,
        dollars=hours * gpus * config.price_per_gpu_hour,
        bottleneck=bottleneck(step),
        advice=advice(planned, cluster, step),
    )


def as_json(config: PlanConfig, plan: Plan) -> dict[str, Any]:
    """Every figure and assumption; bytes, seconds, dollars."""
    planned = plan.planned
    return {
        "assumptions": asdict(config),
        "cluster": asdict(plan.cluster),
        "model": {
            "parameters": planned.parameters,
            "flops_per_row": planned.flops_per_row,
            "flops": planned.flops_per_row * planned.pretrain.batch_size * planned.pretrain.max_steps,
            "blocks": asdict(planned.blocks),
        },
        "preprocessing": asdict(plan.corpus) if plan.corpus else None,
        "pretraining": [
            asdict(line) | ({"seconds_per_step": line.step.seconds} if line.step else {}) for line in plan.lines
        ],
    }
