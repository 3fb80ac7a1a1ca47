"""Reports of nodes that are in order, for tests to spoil one thing at a time."""

from dataclasses import replace
from typing import Any

from pipelines.doctor.finding import Check
from pipelines.doctor.gpus import Gpu, Gpus
from pipelines.doctor.machine import PACKAGES, Machine
from pipelines.doctor.nodes import Node

GB = 10**9


def machine(number: int = 1, **changes: Any) -> Machine:
    """Machine `number` of a good cluster, with the address 10.0.0.NUMBER."""
    good = Machine(
        hostname=f"node{number}",
        identity=f"node{number}/boot",
        versions={"pmlm": "0.1.0", "Python": "3.11.7", **dict.fromkeys(PACKAGES, "1.0")},
        code="c0ffee",
        code_at="/home/ubuntu/pmlm",
        cpus=8,
        memory=32 * GB,
        memory_free=30 * GB,
        open_files=65536,
        shm=16 * GB,
        spill_dir="/tmp/ray",
        disk=100 * GB,
        disk_free=50 * GB,
        nice=0,
        token=True,
        own_addresses=[f"10.0.0.{number}"],
        interfaces={"lo": "127.0.0.1", "eth0": f"10.0.0.{number}"},
    )
    return replace(good, **changes)


def node(number: int = 1, **resources: float) -> Node:
    """The same machine as Ray counts it."""
    return Node(f"node{number}", f"10.0.0.{number}", {"CPU": 8.0, "object_store_memory": 8.0 * GB, **resources})


def gpus(count: int = 1, name: str = "H100", memory: int = 80 * GB, free: int = 79 * GB, **changes: Any) -> Gpus:
    """What torch sees."""
    return replace(Gpus("12.8", "570.1", [Gpu(name, memory, free)] * count), **changes)


def three(**changes: Any) -> dict[str, Machine]:
    """Three good machines, the second of which is changed."""
    return {f"node{number}": machine(number, **(changes if number == 2 else {})) for number in (1, 2, 3)}


def only(check: Check, severity: str, text: str, where: str | None = "node2") -> None:
    """Assert that the check has one finding, of that severity, with that text, at that node, and with a way out."""
    (finding,) = check.findings
    assert finding.severity == severity
    assert text in finding.what
    assert where is None or finding.where == where
    assert finding.remedy.endswith(".")
    assert check.severity == severity
