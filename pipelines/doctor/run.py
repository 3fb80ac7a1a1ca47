"""`pmlm doctor`: ask every node, compare the answers, say what to mend."""

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator

from pipelines import options
from pipelines.cli import COMMANDS
from pipelines.console import next_command, say
from pipelines.doctor import report
from pipelines.doctor.checks import all_checks
from pipelines.doctor.config import DoctorConfig
from pipelines.doctor.demands import settle
from pipelines.doctor.finding import Check, error
from pipelines.doctor.joining import join
from pipelines.doctor.nodes import Nodes
from pipelines.doctor.ray_nodes import nodes_of_ray
from pipelines.doctor.unresolved import remedy
from pipelines.inner_command import words_of
from pipelines.tracking.patience import Attempt
from pipelines.tracking.redact import redact
from pmlm_core import storage
from pmlm_core.errors import PmlmError


def run(config: DoctorConfig) -> None:
    """Check everything and print it.

    Raises:
        ConfigError: recipe or command cannot be read.
        PmlmError: errors were found, or warnings under `strict`.
    """
    demands = settle(config)
    with _nodes(config) as (nodes, joined):
        checks, machines = all_checks(config, demands, nodes, joined)
    report.show_findings(checks)
    errors, warnings = report.numbers(checks)
    ready = not errors and not (config.strict and warnings)
    if config.json is not None:
        report.write(config.json, checks, machines, ready=ready)
    print()
    if not ready:
        raise PmlmError(f"{report.verdict(checks)}; mend what is said above and give the same command again")
    say(report.verdict(checks))
    next_command(_next(config))


@contextlib.contextmanager
def _nodes(config: DoctorConfig) -> Iterator[tuple[Nodes, list[Check]]]:
    """Whom to ask, and how joining them went; this machine alone where that fails."""
    if not config.through_ray():
        yield Nodes(config.timeout), []
        return
    import ray

    mine = not ray.is_initialized()
    failure = join(config.timeout) if mine else None
    address = os.environ.get("RAY_ADDRESS")
    if failure is not None:
        what = f"the Ray at {redact(address)}" if address else "a Ray of this machine's own"
        finding = error(
            f"{what} cannot be joined: {redact(failure)}",
            remedy(
                failure,
                "Start it (`ray up cluster.yaml`), mend RAY_ADDRESS, or unset it to work on this machine alone.",
            ),
            socket.gethostname(),
        )
        yield Nodes(config.timeout), [Check("cluster", "none; this machine alone is looked at", (finding,))]
        return
    with nodes_of_ray(config.timeout, mine=mine) as nodes:
        yield nodes, [Check("cluster", f"joined {redact(address)}" if address else "a Ray of this machine")]


def _next(config: DoctorConfig) -> str:
    """The command that was asked about, or the first of the recipe whose output is not there yet."""
    if config.command:
        return redact(shlex.join(["pmlm", *words_of(config.command)]))
    if config.recipe is None:
        return "pmlm doctor -- pretrain --config RECIPE.yaml"
    found = options.sections(config.recipe, tuple(COMMANDS))
    places = {stage: section.get("output_dir") for stage, section in found.items()}

    def first() -> str:
        return next((stage for stage, place in places.items() if place and not storage.exists(place)), list(found)[-1])

    stage = Attempt(first, config.timeout, "doctor-next").result or next(iter(found))
    return f"pmlm {stage} --config {shlex.quote(config.recipe)}"
