"""The memory of this process and all that it started, sampled while a block runs."""

import os
import threading
from pathlib import Path


class Memory:
    """Largest sum seen, in bytes, of proportional set sizes: pages that processes share count once.

    >>> import time
    >>> with Memory(interval=0.01) as memory:
    ...     time.sleep(0.1)
    >>> memory.peak > 1e6
    True
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.peak = 0.0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self.peak = max(self.peak, sum(map(_pss, _family(os.getpid()))))


def _family(root: int) -> list[int]:
    """`root` and its descendants, by process id."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    family, fresh = [root], [root]
    while fresh:
        fresh = [child for parent in fresh for child in parents.get(parent, [])]
        family += fresh
    return family


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended
    return 0
