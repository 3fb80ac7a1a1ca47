"""GPUs as torch sees them, asked in a process of its own: a driver that hangs or crashes takes no one with it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.tracking.redact import in_brief

_CODE = """
import json, torch
found = []
if torch.cuda.is_available():
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append({"name": torch.cuda.get_device_name(number), "memory": total, "memory_free": free})
print("GPUS " + json.dumps({"cuda": torch.version.cuda or "", "gpus": found}))
"""
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """One device; sizes in bytes."""

    name: str
    memory: int
    memory_free: int


@dataclass(frozen=True)
class Gpus:
    """What torch sees; `cuda` is the version it was built for, empty for a build without; `failure` if it broke."""

    cuda: str = ""
    driver: str = ""
    gpus: list[Gpu] = field(default_factory=list)
    failure: str | None = None


def look_at_gpus(*, ask: bool, in_ray: bool, timeout: float) -> Gpus | None:
    """What torch sees here; None where nobody asked and there is no driver either (importing torch takes seconds).

    Args:
        in_ray: this process was given no GPU by Ray, which hides them by CUDA_VISIBLE_DEVICES; look behind that.
    """
    driver = driver_version(_DRIVER)
    if not ask and not driver:
        return None
    environment = {k: v for k, v in os.environ.items() if not (in_ray and k == "CUDA_VISIBLE_DEVICES")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE], capture_output=True, text=True, timeout=timeout, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        failed = f"no end within {timeout:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        return Gpus(driver=driver, failure=failed)
    line = next((line for line in done.stdout.splitlines() if line.startswith("GPUS ")), None)
    if line is None:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Gpus(driver=driver, failure=in_brief(lines[-1]))
    told = json.loads(line[5:])
    return Gpus(told["cuda"], driver, [Gpu(**each) for each in told["gpus"]])


def driver_version(path: Path) -> str:
    """Version of NVIDIA's kernel driver, empty without one.

    The first line reads "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar ...".
    """
    try:
        words = path.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return ""
    return next((word for word in words if word[:1].isdigit() and "." in word), "")
