"""Options of `pmlm pretrain`; those in `_OPERATIONAL` may change from one start of a run to the next."""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any, Literal

from pipelines.pretrain.ranges import check_ranges
from pipelines.run_place import check_run_place
from pmlm_core.errors import ConfigError
from pmlm_core.model.presets import PRESETS, preset
from pmlm_core.training.batching import micro_batch_size

_OPERATIONAL = frozenset(
    {
        "data_dir",
        "output_dir",
        "upload_dir",
        "run_name",
        "micro_batch_size",
        "torch_compile",
        "cuda_graphs",
        "eval_steps",
        "eval_rows",
        "logging_steps",
        "save_steps",
        "save_minutes",
        "keep_checkpoints",
        "num_workers",
        "min_workers",
        "resize_minutes",
        "parallel",
        "gradient_checkpointing",
        "cpus_per_worker",
        "use_gpu",
        "max_failures",
        "tracking_uri",
        "experiment_name",
        "register_model",
    }
)
"""Options that may differ when a run is resumed: where it runs, how often it looks and saves, not what it computes."""
_ADDED = frozenset({"initializer_range", "rel_pos_lr_scale"})
"""Options younger than the first runs. At its default, which does what was done before there was one, each is left out
of what decides, so that older runs keep their names and go on; an option added from now on belongs here too."""
FINAL = "final"
"""Link in output_dir to the checkpoint of the command given last."""
_OF_THE_START = ("initializer_range", "rel_pos_bins", "max_rel_pos")
"""What a checkpoint to start from has settled."""


@dataclass(frozen=True)
class PretrainConfig:
    """Everything `pmlm pretrain` can be told. The same configuration again resumes the same run."""

    data_dir: str
    """Folder of blocks that `pmlm preprocess` made."""
    output_dir: str
    """Folder for runs, each in one of its own; or s3://, gs://, where they are copied as they are worked on here."""
    upload_dir: str | None = None
    """s3://, gs:// or folder to copy checkpoints to; where output_dir was lost, the run goes on from there."""
    run_name: str | None = None
    """Folder of this run below output_dir; left out, a name is derived from the options that decide the result."""

    preset: str | None = None
    """Size of the model: tiny, mini, small, medium, base or large; the options below override single values."""
    num_hidden_layers: int | None = None
    """Layers."""
    hidden_size: int | None = None
    """Width D of the hidden states."""
    num_attention_heads: int | None = None
    """Attention heads H; must divide hidden_size."""
    intermediate_size: int | None = None
    """Width of the feed-forward layer (4 x hidden_size if hidden_size is given alone)."""
    hidden_dropout_prob: float = 0.1
    """Dropout on hidden states; 0 suits less than one pass over the data."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout on attention weights."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights; small models may want more, about 1 / sqrt(hidden_size)."""
    rel_pos_bins: int = 32
    """Buckets of the relative position bias; 0 does without the bias."""
    max_rel_pos: int = 128
    """Distance at which the buckets' logarithmic growth would end; all positions from somewhat nearer on, 91 with 32
    buckets and 128, share the last."""
    init_checkpoint: str | None = None
    """Start from the weights of this checkpoint folder, which brings its architecture (no preset then); at s3:// or
    gs:// too. With other weights in that place it is another run."""

    objective: Literal["AE", "PAR", "AR", "AE+AR", "AE+PAR"] = "AE+PAR"
    """What is predicted: AE autoencoding, PAR partially autoregressive, AR autoregressive, or a sum of two."""

    batch_size: int = 256
    """Rows of a global batch, whatever the number of workers."""
    micro_batch_size: int | None = None
    """Rows of one forward pass of one worker; left out, as many as divide evenly and stay within a token budget, or, of
    a run that goes on, as before: another size has other dropout."""
    max_steps: int = 100_000
    """Updates to make."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    rel_pos_lr_scale: float = 1.0
    """Learning rate of the relative position bias, as a multiple of learning_rate; a short run needs 30 or more."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after warm-up."""
    warmup_steps: int | None = None
    """Updates over which the learning rate rises; give this or warmup_ratio."""
    warmup_ratio: float | None = None
    """Share of max_steps over which the learning rate rises; give this or warmup_steps."""
    adam_beta1: float = 0.9
    """Decay of the gradient's mean in Adam."""
    adam_beta2: float = 0.999
    """Decay of the gradient's square in Adam."""
    adam_epsilon: float = 1e-6
    """Added to Adam's denominator."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices (not of biases, LayerNorm and the relative position bias)."""
    max_grad_norm: float | None = None
    """Clip the gradient's norm to this; left out, it is only measured."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the matrix products; auto takes bf16 where the processor computes in it, weights stay fp32."""
    gradient_checkpointing: bool = False
    """Keep less for backward and compute layers twice: much less memory, about a third more work, same results."""
    torch_compile: bool | None = None
    """Compile what has no kernel of its own between the matrix products with torch.compile; left out, on GPUs."""
    cuda_graphs: bool | None = None
    """Send passes to a GPU as graphs, recorded once; left out, where one trains, without gradient_checkpointing."""
    seed: int = 0
    """Of initial weights, order of rows and dropout."""

    eval_steps: int = 1000
    """Updates between two measurements of the losses on held-out rows; the last is at the end."""
    eval_rows: int = 1024
    """How many held-out rows to measure on; 0 switches it off."""
    logging_steps: int = 10
    """Updates between two lines of figures, which are means since the last."""
    save_steps: int = 1000
    """Updates between two checkpoints; the last is at the end."""
    save_minutes: float | None = None
    """Minutes since the last checkpoint after which one is written as well."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep; the best is kept besides."""

    num_workers: int = 1
    """Worker processes that share each batch; a run may be resumed with another number: the same rows, the same dropout
    with the same micro_batch_size."""
    min_workers: int | None = None
    """Start and go on with as few while nodes are missing, num_workers being the most; the batches stay the same."""
    resize_minutes: float = 5.0
    """With min_workers: look so often whether more workers fit; growing goes on from the last checkpoint."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every worker holds the whole model; fsdp: its share of weights, gradients and Adam, for less memory."""
    cpus_per_worker: int | None = None
    """CPU threads of a worker; left out, an even share of this machine, and 1 on a cluster that is joined."""
    use_gpu: bool = False
    """One GPU for each worker."""
    max_failures: int = 3
    """How often lost workers may be replaced before the run gives up; counted anew where it got to a checkpoint."""

    tracking_uri: str | None = None
    """MLflow store; left out, MLFLOW_TRACKING_URI or sqlite:///mlflow.db; "none" switches tracking off."""
    experiment_name: str = "pmlm-pretrain"
    """MLflow experiment."""
    register_model: str | None = None
    """Register the final checkpoint as an MLflow model of this name."""

    def validate(self) -> None:
        """Refuse what is out of range or contradicts itself; nothing is read from disk."""
        if (self.preset is None) == (self.init_checkpoint is None):
            if self.preset is not None:
                raise ConfigError("give preset or init_checkpoint, not both: a checkpoint brings its own architecture")
            sizes = (self.num_hidden_layers, self.hidden_size, self.num_attention_heads)
            if None in sizes:
                raise ConfigError(
                    f"no model size: give preset ({', '.join(PRESETS)}), or num_hidden_layers, hidden_size and "
                    "num_attention_heads, or init_checkpoint"
                )
        if self.init_checkpoint is not None and any(
            value is not None
            for value in (self.num_hidden_layers, self.hidden_size, self.num_attention_heads, self.intermediate_size)
        ):
            raise ConfigError("init_checkpoint brings its own architecture: leave out layers, sizes and heads")
        changed = [name for name in _OF_THE_START if getattr(self, name) != DEFAULTS[name]]
        if self.init_checkpoint is not None and changed:
            raise ConfigError(
                f"init_checkpoint brings its own weights and position bias: leave out {' and '.join(changed)}"
            )
        if not self.rel_pos_bins and self.rel_pos_lr_scale != 1.0:
            raise ConfigError(
                f"rel_pos_lr_scale {self.rel_pos_lr_scale} is for a position bias, and with rel_pos_bins 0 there is "
                "none: leave out one of them"
            )
        if self.preset is not None:
            preset(self.preset)
        if self.init_checkpoint is None and self.size()["hidden_size"] % self.size()["num_attention_heads"]:
            raise ConfigError(
                f"hidden_size {self.size()['hidden_size']} is not divisible by "
                f"num_attention_heads {self.size()['num_attention_heads']}"
            )
        check_ranges(self)
        bins, reach = self.rel_pos_bins, self.max_rel_pos
        if bins % 4 or (bins and reach <= bins // 4):
            raise ConfigError(
                f"rel_pos_bins {bins} with max_rel_pos {reach} leaves no buckets for distances that share one; take a "
                "multiple of 4 and a max_rel_pos above a quarter of it, or rel_pos_bins 0 for no bias"
            )
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ConfigError("give warmup_steps or warmup_ratio, not both")
        if self.warmup() > self.max_steps:
            raise ConfigError(f"warmup_steps {self.warmup()} is more than max_steps {self.max_steps}")
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ConfigError(
                f"min_workers {self.min_workers} is more than num_workers {self.num_workers}, which is the most there "
                "will be: lower min_workers, or raise num_workers"
            )
        if self.cuda_graphs and not self.use_gpu:
            raise ConfigError(
                "cuda_graphs needs a GPU and this run is on the CPU; leave cuda_graphs out, or give use_gpu true where "
                "there is a GPU"
            )
        if self.cuda_graphs and not self._may_be_recorded():
            raise ConfigError(
                "cuda_graphs records the passes of one GPU that keeps its activations: it goes with num_workers 1 and "
                "no gradient_checkpointing; leave it out"
            )
        check_run_place(self.output_dir, self.run_name, self.upload_dir)
        if self.run_name == FINAL:
            raise ConfigError(
                f"run_name '{FINAL}' is the name of the link in output_dir that leads to the checkpoint of the command "
                "given last: choose another"
            )
        if self.tracking_uri == "none" and self.register_model is not None:
            raise ConfigError(
                f"register_model {self.register_model} is for MLflow, which tracking_uri none switches off: leave out "
                "one of them (--register_model null where a recipe gives it)"
            )
        micro_batch_size(self.batch_size, self.num_workers, self.micro_batch_size, limit=self.batch_size)

    def compiles(self) -> bool:
        """Whether parts of the model are compiled."""
        return self.use_gpu if self.torch_compile is None else self.torch_compile

    def records(self) -> bool:
        """Whether passes are recorded as CUDA graphs."""
        return self.cuda_graphs is not False and self._may_be_recorded()

    def _may_be_recorded(self) -> bool:
        return self.use_gpu and self.num_workers == 1 and not self.gradient_checkpointing

    def size(self) -> dict[str, int]:
        """Layers, widths and heads: the preset with its overrides."""
        base = preset(self.preset) if self.preset is not None else None
        sizes = {
            name: getattr(self, name) if getattr(self, name) is not None else getattr(base, name, None)
            for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
        }
        if self.intermediate_size is None and (base is None or self.hidden_size is not None):
            sizes["intermediate_size"] = 4 * int(sizes["hidden_size"] or 0)
        return {name: int(value or 0) for name, value in sizes.items()}

    def warmup(self) -> int:
        """Warm-up in updates."""
        if self.warmup_ratio is not None:
            return round(self.warmup_ratio * self.max_steps)
        return self.warmup_steps or 0

    def deciding(self, start: str | None = None) -> dict[str, Any]:
        """The options that decide what is computed, and so whether two configurations are one run.

        Args:
            start: digest of what init_checkpoint holds, which decides in place of its path.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OPERATIONAL}
        # Two ways to say the same are the same.
        sizes = self.size() if self.init_checkpoint is None else {}
        del values["preset"], values["warmup_ratio"]
        values["init_checkpoint"] = start or self.init_checkpoint
        for name in _ADDED:
            if values[name] == DEFAULTS[name]:
                del values[name]
        return {**values, **sizes, "warmup_steps": self.warmup()}

    def name_for(self, data_fingerprint: str, start: str | None = None) -> str:
        """The run's folder: as given, or derived from what decides the result, blocks and `start` included."""
        if self.run_name is not None:
            return self.run_name
        text = json.dumps([self.deciding(start), data_fingerprint], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.preset or 'model'}-{self.objective.lower().replace('+', '_')}-{digest}"


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(PretrainConfig)}
"""What each option is when it is not given."""
