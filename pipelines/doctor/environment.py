"""Environment variables that spoil a run without a word. OMP_NUM_THREADS is not one: workers set torch's threads."""

from collections.abc import Mapping, Sequence

from pipelines.doctor.demands import Job
from pipelines.doctor.finding import Check, Finding, error, odd_ones, warning
from pipelines.doctor.machine import Machine

_BINDS = ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def check(machines: Mapping[str, Machine], jobs: Sequence[Job], *, in_ray: bool) -> Check:
    """Look at the variables of every node's processes (`machine._WATCHED`)."""
    findings: list[Finding] = []
    threads, workers = max((job.cpus for job in jobs), default=1), max((job.num_workers for job in jobs), default=1)
    before = "before Ray is started there" if in_ray else "in this shell"
    for label, each in machines.items():
        found = each.environment
        limit = found.get("OMP_THREAD_LIMIT", "")
        if limit.isdigit() and int(limit) < threads:
            text = f"OMP_THREAD_LIMIT={limit} keeps a worker from its {threads} threads"
            findings.append(warning(text, f"Unset it {before}.", label))
        for name in _BINDS:
            if found.get(name, "false").lower() not in ("false", "0", "", "disabled", "none") and workers > 1:
                text = f"{name}={found[name]} binds threads to cores: the workers of a node may all get the same ones"
                findings.append(warning(text, f"Unset it {before}.", label))
        if found.get("NUMBA_DISABLE_JIT", "0") not in ("0", ""):
            text = "NUMBA_DISABLE_JIT makes packing and masking a hundred times slower"
            findings.append(error(text, f"Unset it {before}.", label))
        if found.get("CUDA_LAUNCH_BLOCKING", "0") not in ("0", ""):
            text = "CUDA_LAUNCH_BLOCKING makes the GPU wait for every kernel"
            findings.append(warning(text, f"Unset it {before}, but for debugging.", label))
        hidden = not in_ray and found.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
        if hidden and any(job.gpus for job in jobs):
            text = f"CUDA_VISIBLE_DEVICES={found['CUDA_VISIBLE_DEVICES']} hides the GPUs that are asked for"
            findings.append(error(text, f"Unset it {before}.", label))
    paths = {label: each.environment.get("PYTHONPATH", "") for label, each in machines.items()}
    for label, path in odd_ones(paths).items():
        text = f"PYTHONPATH is {path or 'not set'}, unlike on the other nodes: they may import other code"
        findings.append(warning(text, "Set it alike on all nodes, or nowhere, and start Ray again.", label))
    for label, nice in odd_ones({label: each.nice for label, each in machines.items()}).items():
        text = f"Ray's processes have priority {nice}, unlike on the other nodes: they may lag behind"
        findings.append(warning(text, "Start Ray with the same `nice` on all nodes.", label))
    return Check("environment", "no variable that hurts" if not findings else "variables that hurt", tuple(findings))
