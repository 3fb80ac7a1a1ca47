"""Limits of a machine that long runs meet late: open files, shared memory, the disk that Ray spills to."""

from collections.abc import Mapping, Sequence

from pipelines.doctor.finding import Check, Finding, error, warning
from pipelines.doctor.machine import Machine
from pipelines.doctor.nodes import Node
from pipelines.quantities import size_text

_OPEN_FILES = 8192
_SMALLEST_SHM = 1e9
_RAY_STOPS_AT = 0.95  # RAY_local_fs_capacity_threshold: above it Ray writes nothing more
_SPARE = 10e9


def check(nodes: Sequence[Node], machines: Mapping[str, Machine]) -> Check:
    """Look at every node's report."""
    findings: list[Finding] = []
    for node in nodes:
        label, each = node.label, machines[node.label]
        if each.open_files < _OPEN_FILES:
            findings.append(
                warning(
                    f"a process may have only {each.open_files:,} files and connections open",
                    "Raise it before Ray is started: `ulimit -n 65536`, or LimitNOFILE of the service.",
                    label,
                )
            )
        findings += _shared_memory(node, each)
        used = 1 - each.disk_free / each.disk if each.disk else 0.0
        if used >= _RAY_STOPS_AT:
            findings.append(
                error(
                    f"the disk of {each.spill_dir} is {used:.0%} full, and Ray stops writing at {_RAY_STOPS_AT:.0%}",
                    "Make room there, or start Ray with --temp-dir on another disk.",
                    label,
                )
            )
        elif each.disk_free < _SPARE:
            findings.append(
                warning(
                    f"{size_text(each.disk_free)} are free at {each.spill_dir}, where Ray puts logs and what memory "
                    "does not hold",
                    "Make room there, or start Ray with --temp-dir on another disk.",
                    label,
                )
            )
    least = min((machines[node.label].disk_free for node in nodes), default=0)
    files = min((machines[node.label].open_files for node in nodes), default=0)
    return Check("limits", f"{files:,} open files, {size_text(least)} of disk for Ray, at least", tuple(findings))


def _shared_memory(node: Node, machine: Machine) -> list[Finding]:
    store = node.resources.get("object_store_memory", _SMALLEST_SHM)
    if machine.shm is None or machine.shm >= store:
        return []
    asked = "Ray's object store is" if "object_store_memory" in node.resources else "Ray's object store wants at least"
    return [
        warning(
            f"/dev/shm has {size_text(machine.shm)} and {asked} {size_text(store)}: on the disk it is slow",
            f"Enlarge it (`docker run --shm-size={store / 1e9:.0f}g`, or mount -o remount,size=...).",
            node.label,
        )
    ]
