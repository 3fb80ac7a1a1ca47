"""What a benchmark's file says: what is searched and how long, the paper's grid, the published figures.

A file holds one `BENCHMARK`. It is data: it knows nothing of clusters, and only its `space` needs `ray.tune`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Options of `pmlm finetune` that may be searched: none of them changes what is encoded, so that all trials share it.
SEARCHABLE = frozenset(
    {
        *("learning_rate", "rel_pos_lr_scale", "batch_size", "warmup_ratio", "weight_decay", "num_train_epochs"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "label_smoothing", "target_mask_prob"),
        *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
        *("num_beams", "length_penalty", "min_target_length", "no_repeat_ngram_size"),
    }
)


@dataclass(frozen=True)
class Published:
    """A published result.

    Attributes:
        model: as its authors call it.
        figures: by the names that the task's scorer uses, in percent: {"f1": 93.1, "exact_match": 87.1}.
        split: "dev" or "test", as published.
    """

    model: str
    figures: Mapping[str, float]
    split: Literal["dev", "test"] = "dev"


@dataclass(frozen=True)
class Budget:
    """How much is tried when nothing else is asked for.

    Attributes:
        num_samples: trials of a search; a grid has as many as it has.
        finalists: best configurations that are trained again with every seed.
        grace_epochs: epochs of the shortest trial before one may be stopped as hopeless; of longer ones the same share.
    """

    num_samples: int = 16
    finalists: int = 3
    grace_epochs: int = 1


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as `pmlm sweep --benchmark` takes it.
        task: as `pmlm finetune --task` takes it.
        metric: the figure of the task's development split that is optimised; a name of the task's scores.
        space: makes the domains of `ray.tune` that are searched, by option of `pmlm finetune`; only `SEARCHABLE` ones.
        paper_grid: the values of the paper's grid, by option; options with one value are the paper's recipe.
        options: options of `pmlm finetune` that every trial has, besides the task's recipe.
        mutable: options that population-based training may change in the middle of a trial.
        seeds: of the finalists and of the grid.
        published: results to compare with, the paper's first.
    """

    name: str
    task: str
    metric: str
    space: Callable[[], dict[str, Any]]
    paper_grid: Mapping[str, tuple[Any, ...]]
    mode: Literal["max", "min"] = "max"
    options: Mapping[str, Any] = field(default_factory=dict)
    mutable: tuple[str, ...] = ("learning_rate", "weight_decay")
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    budget: Budget = Budget()
    published: tuple[Published, ...] = ()
