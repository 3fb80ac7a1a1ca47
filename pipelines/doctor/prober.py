"""What each node does for the doctor: one object on every node, called from the driver."""

import time
from collections.abc import Mapping
from typing import Any

from pipelines.doctor import links
from pipelines.doctor.machine import Machine, report
from pipelines.doctor.places import Probe, Seen, Touched, look, tidy, touch


class Prober:
    """Answers the driver's questions about the machine it runs on."""

    def __init__(self, in_ray: bool = False) -> None:
        """Look later; `in_ray` says whether this is a process of Ray's."""
        self._in_ray = in_ray
        self._server: Any = None

    def report(self, ask_gpus: bool, timeout: float) -> Machine:
        """What this machine is."""
        return report(ask_gpus=ask_gpus, in_ray=self._in_ray, timeout=timeout)

    def touch(self, probe: Probe, name: str) -> Touched:
        """Read what the driver wrote and write beside it, under `name`."""
        return touch(probe, name)

    def tidy(self, probe: Probe, name: str) -> None:
        """Remove what `touch` wrote."""
        tidy(probe, name)

    def look(self, path: str) -> Seen:
        """What is to be seen of what is only read."""
        return look(path)

    def resolve(self, names: list[str]) -> dict[str, list[str]]:
        """Addresses of host names."""
        return links.addresses_of_all(names)

    def listen(self) -> int:
        """Open a port for the other nodes and give its number."""
        self._server = links.listening()
        return int(self._server.getsockname()[1])

    def connect(self, targets: Mapping[str, tuple[str, int]], timeout: float) -> dict[str, str | None]:
        """Reach the other nodes' ports; failures by node."""
        return links.connections(targets, timeout)

    def now(self) -> float:
        """This machine's clock."""
        return time.time()
