"""Options of `pmlm plan`: the recipe, the cluster, the prices, and what is assumed of them."""

from dataclasses import dataclass, field, fields
from typing import ClassVar

from pipelines.ranges import check_numbers
from pmlm_core.errors import ConfigError
from pmlm_core.training.datasheet import MEASURED_MFU


@dataclass(frozen=True)
class PlanConfig:
    """What a recipe would take on clusters of several sizes: pmlm plan --recipe recipes/pretrain/base.yaml"""

    dry_run: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("recipe",)

    recipe: str = ""
    """Recipe with a section pretrain, such as recipes/pretrain/base.yaml; its sections preprocess and tokenizer are
    reckoned with where it has them, fine-tuning and sweeps are not."""
    batch_size: int | None = None
    """Rows of a global batch, in place of the recipe's."""
    micro_batch_size: int | None = None
    """Rows of one forward pass, in place of the recipe's."""
    max_steps: int | None = None
    """Updates, in place of the recipe's."""

    gpus: list[int] = field(default_factory=lambda: [8, 64, 512])
    """Numbers of GPUs, a line of the table each."""
    gpu: str = "H100"
    """Kind of GPU, by a name in the table of data sheets (pmlm_core/training/datasheet.py)."""
    mfu: float = MEASURED_MFU
    """Share of the GPU's peak that the model's products reach, as base did on one H200; a run of yours tells yours."""
    peak_tflops: float | None = None
    """Peak in TFLOP/s, in place of the data sheet's."""
    gpu_memory_gb: float | None = None
    """Memory of a GPU, in place of the data sheet's."""
    launch_us: float = 10.0
    """Microseconds the host takes to send an operation to a GPU; less where torch_compile makes one of several."""

    gpus_per_node: int = 8
    """GPUs that share a node and its network."""
    link_gb_per_s: float | None = None
    """GB/s one way between GPUs of a node, in place of the data sheet's."""
    network_gbit: float = 400.0
    """Gbit/s of a node, all its cards together."""
    network_efficiency: float = 0.8
    """Share of these rates that a sum over all workers reaches."""
    storage_gb_per_s: float = 1.0
    """GB/s of the storage that holds blocks and checkpoints, for the whole cluster."""

    corpus_gb: float | None = None
    """GB of raw text to preprocess; left out, only pre-training is planned."""
    cpus: int = 64
    """CPU cores that preprocess."""
    preprocess_mb_per_s: float = 10.0
    """MB of text that a core preprocesses a second, as measured (docs/scaling.md)."""
    bytes_per_token: float | None = None
    """Bytes of text in a token; left out, as in the recipe's finished blocks, or 4.5, measured on English books."""

    price_per_gpu_hour: float = 4.0
    """Dollars."""
    price_per_cpu_hour: float = 0.04
    """Dollars."""
    price_per_gb_month: float = 0.02
    """Dollars for storing blocks."""

    json: str | None = None
    """Also write all figures to this file, local or in an object store."""

    def validate(self) -> None:
        """Raises ConfigError where something is missing or out of range."""
        if not self.recipe:
            raise ConfigError("pmlm plan needs --recipe, for example --recipe recipes/pretrain/base.yaml")
        if not self.gpus:
            raise ConfigError("gpus names no number of GPUs; write for example --gpus 8 64 512")
        for gpus in self.gpus:
            if gpus < 1:
                raise ConfigError(f"gpus must be 1 or more, not {gpus}")
        numbers = [spec.name for spec in fields(self) if isinstance(getattr(self, spec.name), int | float)]
        prices = [name for name in numbers if name.startswith("price_")]
        check_numbers(self, prices, least=0)
        check_numbers(self, ["mfu", "network_efficiency"], above=0, most=1, hint=": a share of the nominal rate")
        check_numbers(self, [name for name in numbers if name not in prices], above=0)
