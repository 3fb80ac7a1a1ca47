"""How fast fine-tuning is assumed to compute: a share of the processor's peak, the same for a run and for a trial.

No formula knows the machine; what is printed says which share it rests on.
"""

from pmlm_core.training.hardware import cpu_precision
from pmlm_core.training.peak import Peak, datasheet, peak

CPU_MFU, GPU_MFU = 0.35, 0.2
"""Assumed share of the processor's peak, for small batches of unequal length."""


def cpu_peak(cpus: int, precision: str) -> Peak:
    """The peak of `cpus` of this machine's processors, of all at the most; takes about a second.

    Args:
        precision: of the configuration, "auto" included.
    """
    from pipelines.cluster import available_cpus

    have = available_cpus()
    whole = peak("cpu", cpu_precision(precision))
    return Peak(whole.rate * min(cpus, have) / have, whole.source)


def gpu_peak() -> Peak:
    """The data sheet's peak of an H100, for comparison across machines."""
    found = datasheet("H100 80GB HBM3", "bf16")
    assert found is not None, "the table has an H100"
    return found
