"""Ranges of the numbers among the options of pre-training."""

from typing import TYPE_CHECKING

from pipelines.ranges import check_numbers

if TYPE_CHECKING:
    from pipelines.pretrain.config import PretrainConfig


def check_ranges(config: "PretrainConfig") -> None:
    """Refuse a number that is out of the range of its option, whatever the others are.

    Raises:
        ConfigError: naming the option and its range.
    """
    positive = ("batch_size", "max_steps", "eval_steps", "logging_steps", "save_steps", "keep_checkpoints")
    optional = ("micro_batch_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    where = ("num_workers", "min_workers", "resize_minutes", "cpus_per_worker")
    what = ("adam_epsilon", "initializer_range", "learning_rate", "rel_pos_lr_scale", "max_rel_pos")
    check_numbers(config, [*positive, *optional, *where, *what], above=0)
    check_numbers(config, ["max_grad_norm", "save_minutes"], above=0, hint="; leave it out to switch it off")
    check_numbers(config, ["eval_rows", "warmup_steps", "weight_decay", "rel_pos_bins", "seed"], least=0)
    check_numbers(config, ["max_failures"], least=-1, hint=" (-1: no limit)")
    shares = ("hidden_dropout_prob", "attention_probs_dropout_prob", "adam_beta1", "adam_beta2")
    check_numbers(config, shares, least=0, below=1)
    check_numbers(config, ["warmup_ratio"], least=0, most=1)
