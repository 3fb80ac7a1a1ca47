"""Whether the workers that are asked for fit: CPUs, GPUs, memory of the machines and of the GPUs."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.console import counted
from pipelines.doctor.demands import Job
from pipelines.doctor.finding import Check, Finding, error, named, odd_ones, warning
from pipelines.doctor.gpus import Gpus
from pipelines.doctor.machine import Machine
from pipelines.doctor.nodes import Node
from pipelines.quantities import size_text

_LOWER = {
    "preprocess": "num_workers",
    "predict": "batch_size, or num_workers",
    "sweep": "micro_batch_size in its options, or max_concurrent_trials",
}
"""What takes memory, where it is not the micro-batch and the number of workers."""


def check(
    nodes: Sequence[Node],
    machines: Mapping[str, Machine],
    jobs: Sequence[Job],
    *,
    joined: bool,
    most: Mapping[str, float] | None,
) -> Check:
    """Count what there is against what every job asks for.

    Args:
        joined: the nodes are those of a cluster, where Ray counts; alone, workers may share CPUs.
        most: what an autoscaler may grow the cluster to; None without one.
    """
    totals = {kind: sum(node.resources.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    findings: list[Finding] = []
    for job in jobs:
        findings += _counted(job, nodes, totals, joined=joined, most=most)
        findings += _memory(job, nodes, machines)
    have = f"{totals['CPU']:g} CPUs, {totals['GPU']:g} GPUs, {size_text(sum(_own(machines).values()))} of memory"
    asked = "; ".join(
        f"{job.stage} asks for {counted(job.num_workers, 'worker')}{' or more' * (job.most is None)} of "
        f"{counted(job.cpus, 'CPU')}"
        + (f" and {job.gpus:g} GPU" if job.gpus else "")
        + (f", {size_text(job.weight.worker)} each" if job.weight else "")
        for job in jobs
    )
    return Check("capacity", f"{have}; {asked}" if asked else have, tuple(dict.fromkeys(findings)))


def check_gpus(nodes: Sequence[Node], machines: Mapping[str, Machine], *, wanted: bool) -> Check:
    """What torch sees against what Ray counts, and whether the nodes' GPUs are alike."""
    findings: list[Finding] = []
    told: dict[str, tuple[Any, ...]] = {}
    for node in nodes:
        by_ray, gpus = int(node.resources.get("GPU", 0)), machines[node.label].gpus
        if gpus is None or (not by_ray and not gpus.driver and not gpus.gpus):
            continue
        if gpus.failure is not None:
            findings.append(
                error(f"asking torch for GPUs failed: {gpus.failure}", "Try `nvidia-smi` there.", node.label)
            )
        elif len(gpus.gpus) < max(by_ray, 1):
            build = f"is built for CUDA {gpus.cuda}" if gpus.cuda else "is a build without CUDA"
            driver = f"driver {gpus.driver}" if gpus.driver else "no NVIDIA driver"
            told_by = f"and Ray counts {by_ray}" if by_ray else "though there is a driver"
            findings.append(
                (error if wanted or by_ray else warning)(
                    f"torch sees {counted(len(gpus.gpus), 'GPU')}, {told_by} (torch {build}; {driver})",
                    "Install torch for the CUDA of the driver, or a newer driver.",
                    node.label,
                )
            )
        else:
            told[node.label] = (sorted({gpu.name for gpu in gpus.gpus}), gpus.cuda, gpus.driver)
    for label, (names, cuda, driver) in odd_ones(told).items():
        what = f"{named(names)}, CUDA {cuda}, driver {driver}: not as on the other nodes"
        findings.append(warning(what, "Use nodes of one kind: the slowest sets the pace of every step.", label))
    kinds = sorted({name for names, _, _ in told.values() for name in names})
    return Check("GPUs", f"{named(kinds)}, CUDA {next(iter(told.values()))[1]}" if kinds else "none", tuple(findings))


def _counted(
    job: Job, nodes: Sequence[Node], totals: Mapping[str, float], *, joined: bool, most: Mapping[str, float] | None
) -> list[Finding]:
    findings: list[Finding] = []
    for kind, one in (("CPU", float(job.cpus)), ("GPU", job.gpus)):
        needed = job.num_workers * one
        if totals[kind] >= needed:
            continue
        option = "num_workers" if kind == "CPU" else "num_workers or leave out use_gpu"
        who = "1 worker needs" if job.num_workers == 1 else f"{job.num_workers} workers need"
        text = f"{job.stage}: {who} {needed:g} {kind}{'s' * (needed != 1)}, and there are {totals[kind]:g}"
        if not joined and kind == "CPU":
            findings.append(warning(f"{text}: they share them and are slower", "Lower num_workers, or join a cluster."))
        elif most is not None and most.get(kind, 0) >= needed:
            grow = "Nothing, if the autoscaler may start them; run the doctor again when they are up."
            findings.append(warning(f"{text} now; the cluster may grow to {most[kind]:g}", grow))
        else:
            findings.append(error(f"{text}: Ray would wait without end", f"Add nodes, or lower {option}."))
    if findings:
        return findings
    fitting = sum(_fit(job, node) for node in nodes)
    if joined and fitting < job.num_workers and most is None:
        shape = f"{counted(job.cpus, 'CPU')}" + (f" and {job.gpus:g} GPU" if job.gpus else "")
        text = (
            f"{job.stage}: only {fitting} of {job.num_workers} workers of {shape} fit, for each needs them on one node"
        )
        return [error(text, "Lower cpus_per_worker or num_workers.")]
    return []


def _fit(job: Job, node: Node) -> int:
    by = [node.resources.get(kind, 0) // one for kind, one in (("CPU", job.cpus), ("GPU", job.gpus)) if one]
    return int(min(by, default=0))


def _at_once(job: Job, fitting: int) -> int:
    """Workers that run at a time where there is room for `fitting`."""
    return fitting if job.most is None else min(fitting, max(job.most, job.num_workers))


def _memory(job: Job, nodes: Sequence[Node], machines: Mapping[str, Machine]) -> list[Finding]:
    """Memory if Ray packs a machine as full as its CPUs and GPUs allow."""
    if job.weight is None:
        return []
    findings, one, lower = [], job.weight.worker, _LOWER.get(job.stage, "micro_batch_size, or num_workers")
    if job.gpus:
        for node in nodes:
            sharing = max(1, min(int(1 / job.gpus), _at_once(job, _fit(job, node))))
            takes = f"{sharing} workers take" if sharing > 1 else "a worker takes"
            for gpu in (machines[node.label].gpus or Gpus()).gpus:
                if gpu.memory_free < sharing * one:
                    hard = gpu.memory < sharing * one
                    has = f"{size_text(gpu.memory)}" if hard else f"{size_text(gpu.memory_free)} free now"
                    text = f"{job.stage}: {takes} {size_text(sharing * one)} by formula, and {gpu.name} has {has}"
                    less = f"Lower {lower.partition(',')[0]}."
                    remedy = less if hard else "End what else uses the GPU (`nvidia-smi`)."
                    findings.append((error if hard else warning)(text, remedy, node.label))
                    break
        return findings
    workers: dict[str, int] = {}
    for node in nodes:
        identity = machines[node.label].identity
        workers[identity] = workers.get(identity, 0) + _fit(job, node)
    alone = len(nodes) == 1
    for label, machine in {each.identity: (label, each) for label, each in machines.items()}.values():
        here = max(_at_once(job, workers.get(machine.identity, 0)), job.num_workers * alone)
        needed = here * (one + job.weight.libraries)
        if needed > machine.memory_free:
            hard = needed > machine.memory
            has = f"{size_text(machine.memory)}" if hard else f"{size_text(machine.memory_free)} free now"
            text = f"{job.stage}: {counted(here, 'worker')} take {size_text(needed)} by formula, and the node has {has}"
            remedy = f"Lower {lower}." if hard else "End what else runs there."
            findings.append((error if hard else warning)(text, remedy, label))
    return findings


def _own(machines: Mapping[str, Machine]) -> dict[str, int]:
    """Memory by machine: several nodes on one machine share it."""
    return {each.identity: each.memory for each in machines.values()}
