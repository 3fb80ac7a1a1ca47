"""A cluster in rates: what the options and the data sheets say of it."""

from dataclasses import dataclass

from pipelines.plan.config import PlanConfig
from pmlm_core.errors import ConfigError, near
from pmlm_core.training.datasheet import board, datasheet, known

_USABLE = 0.92
"""Share of a GPU's memory that tensors can fill: the rest goes to the driver and to gaps between them."""


@dataclass(frozen=True)
class Cluster:
    """Rates in operations, bytes and seconds; `peak`, `memory` and `link` are of a GPU, `network` of a node."""

    gpu: str
    peak: float
    precision: str
    mfu: float
    memory: float
    launch: float
    gpus_per_node: int
    link: float
    network: float
    storage: float

    @property
    def rate(self) -> float:
        """Operations a second that one GPU is taken to reach."""
        return self.peak * self.mfu

    @property
    def usable_memory(self) -> float:
        """Bytes that tensors can fill."""
        return _USABLE * self.memory

    def ring(self, gpus: int) -> float:
        """Bytes a second through the slowest link of a ring of `gpus`."""
        return self.link if gpus <= self.gpus_per_node else min(self.link, self.network)


def cluster_of(config: PlanConfig, precision: str) -> Cluster:
    """The cluster that `config` describes, computing in `precision`, "bf16" or "fp32".

    Raises:
        ConfigError: the GPU is in no table, and the options do not say enough of it.
    """
    sheet, used = datasheet(config.gpu, precision), precision
    if sheet is None and precision == "bf16" and config.peak_tflops is None:
        sheet, used = datasheet(config.gpu, "fp16"), "fp16"
    found = board(config.gpu)
    rate = config.peak_tflops * 1e12 if config.peak_tflops else sheet.rate if sheet else None
    memory = config.gpu_memory_gb * 1e9 if config.gpu_memory_gb else found.memory if found else None
    link = config.link_gb_per_s * 1e9 if config.link_gb_per_s else found.link if found else None
    return Cluster(
        gpu=config.gpu,
        peak=_need(rate, config, "peak_tflops"),
        precision=used,
        mfu=config.mfu,
        memory=_need(memory, config, "gpu_memory_gb"),
        launch=config.launch_us * 1e-6,
        gpus_per_node=config.gpus_per_node,
        link=_need(link, config, "link_gb_per_s") * config.network_efficiency,
        network=config.network_gbit / 8 * 1e9 * config.network_efficiency,
        storage=config.storage_gb_per_s * 1e9,
    )


def _need(value: float | None, config: PlanConfig, option: str) -> float:
    if value is None:
        hint = near(config.gpu, known()) or ";"
        raise ConfigError(
            f"no data sheet of gpu '{config.gpu}' is in the table{hint} give --{option}, or one of {', '.join(known())}"
        )
    return value
