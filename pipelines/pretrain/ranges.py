"""Ranges of the numbers among the options of pre-training."""

from typing import TYPE_CHECKING

from pmlm_core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.pretrain.config import PretrainConfig


def check_ranges(config: "PretrainConfig") -> None:
    """Refuse a number that is out of the range of its option, whatever the others are.

    Raises:
        ConfigError: naming the option and its range.
    """
    positive = ("batch_size", "max_steps", "eval_steps", "logging_steps", "save_steps", "keep_checkpoints")
    optional = ("micro_batch_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    for name in (
        *positive,
        *optional,
        "num_workers",
        "min_workers",
        "resize_minutes",
        "cpus_per_worker",
        "adam_epsilon",
        "initializer_range",
        "learning_rate",
        "rel_pos_lr_scale",
        "max_rel_pos",
    ):
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name} must be above 0, not {value}")
    for name in ("max_grad_norm", "save_minutes"):
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name} must be above 0, not {value}; leave it out to switch it off")
    for name in ("eval_rows", "warmup_steps", "weight_decay", "rel_pos_bins", "seed"):
        value = getattr(config, name)
        if value is not None and value < 0:
            raise ConfigError(f"{name} must be 0 or more, not {value}")
    if config.max_failures < -1:
        raise ConfigError(f"max_failures must be 0 or more, or -1 for no limit, not {config.max_failures}")
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "adam_beta1", "adam_beta2"):
        if not 0.0 <= getattr(config, name) < 1.0:
            raise ConfigError(f"{name} must be from 0 to below 1, not {getattr(config, name)}")
    if config.warmup_ratio is not None and not 0.0 <= config.warmup_ratio <= 1.0:
        raise ConfigError(f"warmup_ratio must be from 0 to 1, not {config.warmup_ratio}")
