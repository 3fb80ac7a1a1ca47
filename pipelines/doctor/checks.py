"""All checks in their order: the questions to the nodes, and the answers to what judges them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from pipelines import cluster
from pipelines.console import counted
from pipelines.doctor import access, blocks, capacity, environment, limits, network, report, storage, tracking, versions
from pipelines.doctor.config import DoctorConfig
from pipelines.doctor.demands import Demands
from pipelines.doctor.examined import examine
from pipelines.doctor.finding import Check, Finding, error, warning
from pipelines.doctor.machine import Machine
from pipelines.doctor.machine import report as machine_report
from pipelines.doctor.nodes import Nodes
from pipelines.tracking.redact import in_brief, redact


def all_checks(
    config: DoctorConfig, demands: Demands, nodes: Nodes, joined: list[Check]
) -> tuple[list[Check], dict[str, Machine]]:
    """All checks, shown as they come, and the reports of the nodes that answered."""
    checks: list[Check] = []

    def add(name: str, work: Callable[[], Check]) -> None:
        checks.append(_done(name, work))
        report.show_check(checks[-1])

    for check in joined:
        add(check.name, lambda check=check: check)  # type: ignore[misc]
    machines, silent = _reports(nodes, demands, config.timeout)
    add("nodes", lambda: Check("nodes", counted(len(machines), "node") + " answered", tuple(silent)))
    compared = {**machines, "this command": _here(config.timeout)} if nodes.through_ray else machines
    several = len({each.identity for each in compared.values()}) > 1
    gpus = any(job.gpus for job in demands.jobs)
    add("versions", lambda: versions.check(compared))
    if nodes.through_ray:
        add("token", lambda: access.check(machines, alone=not (several or cluster.is_remote())))
        _add_network(add, nodes, machines, gloo=any(job.group and not job.gpus for job in demands.jobs))
    add("limits", lambda: limits.check(nodes.nodes, machines))
    add("environment", lambda: environment.check(machines, demands.jobs, in_ray=nodes.through_ray))
    add("GPUs", lambda: capacity.check_gpus(nodes.nodes, machines, wanted=gpus))
    add("capacity", lambda: _capacity(nodes, machines, demands))
    if demands.places:
        written = tuple(place.path for place in demands.places if place.written)
        add(
            "paths",
            lambda: storage.check([examine(place, nodes) for place in demands.places], demands.jobs, written),
        )
    if config.verify_blocks:
        add("blocks", lambda: blocks.check(demands.places))
    add("MLflow", lambda: tracking.check(tracking.look(demands.tracking_uri, config.timeout), several=several))
    return checks, machines


def _add_network(
    add: Callable[[str, Callable[[], Check]], None], nodes: Nodes, machines: dict[str, Machine], *, gloo: bool
) -> None:
    addresses = {node.label: node.address for node in nodes.nodes}

    def names() -> Check:
        answers = nodes.ask("resolve", sorted({each.hostname for each in machines.values()}))
        resolved = {label: answer.value for label, answer in answers.items() if answer.failure is None}
        return network.check_names(machines, addresses, resolved, gloo=gloo)

    def connections() -> Check:
        opened = {label: answer.value for label, answer in nodes.ask("listen").items() if answer.failure is None}
        targets = {
            label: ({other: (addresses[other], port) for other, port in opened.items() if other != label},)
            for label in nodes.labels
        }
        patience = min(5.0, nodes.timeout / 2)
        tried = nodes.ask("connect", each={label: (*targets[label], patience) for label in nodes.labels})
        return network.check_connections(
            {
                label: answer.value if answer.failure is None else dict.fromkeys(targets[label][0], answer.failure)
                for label, answer in tried.items()
            }
        )

    add("names", names)
    add("connections", connections)
    add(
        "clocks",
        lambda: network.check_clocks({label: told for label in nodes.labels if (told := nodes.offset(label))}),
    )


def _reports(nodes: Nodes, demands: Demands, timeout: float) -> tuple[dict[str, Machine], list[Finding]]:
    wanted = any(job.gpus for job in demands.jobs)
    each = {node.label: (wanted or node.resources.get("GPU", 0) > 0, timeout) for node in nodes.nodes}
    answers = nodes.ask("report", each=each)
    silent = [
        error(
            f"it does not answer: {answer.failure}",
            "Install this pmlm there, see whether the machine is up (`ray status`), or raise --timeout.",
            label,
        )
        for label, answer in answers.items()
        if answer.failure is not None
    ]
    nodes.drop([finding.where for finding in silent])
    silent += [
        warning(f"it was lost: {redact(reason)}", "Start Ray there again, if the run is to have it.", label)
        for label, reason in nodes.lost.items()
    ]
    if not nodes.through_ray:  # Ray would count the GPUs
        seen = {label: len(answer.value.gpus.gpus) for label, answer in answers.items() if answer.value.gpus}
        nodes.nodes = [
            replace(node, resources={**node.resources, "GPU": seen.get(node.label, 0)}) for node in nodes.nodes
        ]
    return {label: answer.value for label, answer in answers.items() if answer.failure is None}, silent


def _capacity(nodes: Nodes, machines: dict[str, Machine], demands: Demands) -> Check:
    found = capacity.check(
        nodes.nodes,
        machines,
        demands.jobs,
        joined=nodes.through_ray,
        most=_most_of_autoscaler() if nodes.through_ray else None,
    )
    return Check(found.name, found.summary, (*demands.findings, *found.findings))


def _most_of_autoscaler() -> Mapping[str, float] | None:
    """What Ray's autoscaler may grow to, None without one (or with one that does not tell)."""
    try:
        from ray._private.state import state

        return state.get_max_resources_from_cluster_config()
    except Exception:  # not public: it may be gone in another version of Ray
        return None


def _here(timeout: float) -> Machine:
    return machine_report(ask_gpus=False, in_ray=False, timeout=timeout)


def _done(name: str, work: Callable[[], Check]) -> Check:
    """A check that breaks is a finding, and keeps nobody from the others."""
    try:
        return work()
    except Exception as met:
        what = in_brief(f"{type(met).__name__}: {met}")
        return Check(name, "could not be checked", (error(what, "Mend what it names, then look again."),))
