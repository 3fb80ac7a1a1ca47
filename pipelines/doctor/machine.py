"""What a machine tells about itself; runs on every node, so it takes nothing but the standard library."""

import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pmlm_core
from pipelines.cluster import available_cpus
from pipelines.doctor.gpus import Gpus, look_at_gpus
from pipelines.doctor.links import addresses_of, interfaces
from pmlm_core.sources import fingerprint

PACKAGES = ("torch", "ray", "pyarrow", "transformers", "sentencepiece", "numpy", "numba")
_WATCHED = (
    "PYTHONPATH",
    "OMP_THREAD_LIMIT",
    "OMP_PROC_BIND",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "NUMBA_DISABLE_JIT",
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
)
"""Variables that can hurt; no other is looked at, for they may hold secrets."""


@dataclass(frozen=True)
class Machine:
    """A node's report. Sizes are in bytes; `identity` is the same for two nodes only if they are one machine."""

    hostname: str
    identity: str
    versions: dict[str, str]
    code: str
    code_at: str
    cpus: int
    memory: int
    memory_free: int
    open_files: int
    shm: int | None
    spill_dir: str
    disk: int
    disk_free: int
    nice: int
    token: bool | None
    own_addresses: list[str]
    interfaces: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    gpus: Gpus | None = None


def report(*, ask_gpus: bool, in_ray: bool, timeout: float) -> Machine:
    """Look at the machine this runs on.

    Args:
        ask_gpus: look for GPUs even where nothing tells of a driver.
        in_ray: this is a process of Ray's, not the user's.
    """
    hostname, spill_dir = socket.gethostname(), _spill_dir(in_ray)
    total, free = _memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))
    disk = shutil.disk_usage(spill_dir)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(
        hostname=hostname,
        identity=f"{hostname}/{_read('/proc/sys/kernel/random/boot_id')}",
        versions=_versions(),
        code=code_fingerprint(),
        code_at=str(_code_root()),
        cpus=available_cpus(),
        memory=total,
        memory_free=free,
        open_files=sys.maxsize if soft == resource.RLIM_INFINITY else soft,
        shm=shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else None,
        spill_dir=spill_dir,
        disk=disk.total,
        disk_free=disk.free,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        token=_token_in_force() if in_ray else None,
        own_addresses=addresses_of(hostname),
        interfaces=interfaces(),
        environment={name: os.environ[name] for name in _WATCHED if name in os.environ},
        gpus=look_at_gpus(ask=ask_gpus, in_ray=in_ray, timeout=timeout),
    )


def code_fingerprint() -> str:
    """Of all Python files of pmlm as they lie here, changes that are in no commit included."""
    return fingerprint(*(_code_root() / package for package in ("pmlm_core", "pipelines", "tune_spaces")))[:12]


def _code_root() -> Path:
    return Path(pmlm_core.__file__).resolve().parent.parent


def _versions() -> dict[str, str]:
    found = {"pmlm": pmlm_core.__version__, "Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _memory(meminfo: Path, groups: Path) -> tuple[int, int]:
    """Memory of this machine or, if that is less, of the container, and how much of it is free."""
    lines = (line.split() for line in meminfo.read_text().splitlines())
    values = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    total, free = values["MemTotal"], values.get("MemAvailable", values["MemFree"])
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = _read(groups / limit), _read(groups / used)
        if most.isdigit() and now.isdigit() and int(most) < total:
            return int(most), min(free, max(0, int(most) - int(now)))
    return total, free


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _spill_dir(in_ray: bool) -> str:
    """Where Ray writes what does not fit into memory: its session's folder, or the one above if there is none yet."""
    folder = ""
    if in_ray:
        from ray._private import worker

        node = getattr(worker, "_global_node", None)
        folder = str(node.get_session_dir_path()) if node is not None else ""
    folder = folder or os.environ.get("RAY_TMPDIR") or "/tmp"
    return folder if os.path.isdir(folder) else "/tmp"


def _token_in_force() -> bool | None:
    """Whether this Ray asks for a token, None if it does not tell."""
    try:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled
    except ImportError:
        return None
    return bool(is_token_auth_enabled())
