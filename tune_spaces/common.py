"""What several benchmarks share: the paper's grids and recipes, and spaces in which small models find their place too.

The grids are the paper's. The spaces go beyond them on both sides: the paper's learning rates, 5e-6 to 7e-5, are
those of a base model, while a model of a few million weights wants 2e-4 to 1e-3 and hardly moves at the paper's.
"""

from collections.abc import Sequence
from typing import Any

GLUE_GRID = {
    "learning_rate": (5e-6, 1e-5, 1.5e-5, 2e-5, 3e-5),
    "batch_size": (16, 32),
    "warmup_ratio": (0.1, 0.2),
    "weight_decay": (0.01, 0.1),
    "num_train_epochs": (10, 15),
}
"""One for all tasks of GLUE: 80 configurations."""

SQUAD_RECIPE = {
    "learning_rate": (2e-5,),
    "batch_size": (32,),
    "warmup_ratio": (0.1,),
    "weight_decay": (0.01,),
    "num_train_epochs": (4,),
}

SUMMARY_RECIPE = {
    "learning_rate": (7e-5,),
    "batch_size": (64,),
    "warmup_ratio": (0.02,),
    "weight_decay": (0.01,),
    "num_train_epochs": (14,),
    "label_smoothing": (0.1,),
    "num_beams": (5,),
}
"""Without the share of hidden target tokens and the length penalty, which differ."""

QUESTION_RECIPE = {
    "learning_rate": (2e-5,),
    "batch_size": (48,),
    "warmup_ratio": (0.1,),
    "weight_decay": (0.01,),
    "num_train_epochs": (16,),
    "label_smoothing": (0.1,),
    "num_beams": (8,),
    "length_penalty": (1.3,),
}

GENERATION_MUTABLE = ("learning_rate", "weight_decay", "label_smoothing", "target_mask_prob")
"""What population-based training may change where texts are generated."""


def understanding_space(batch_size: Sequence[int], num_train_epochs: Sequence[int]) -> dict[str, Any]:
    """Domains for classification, regression and question answering.

    Args:
        batch_size, num_train_epochs: the values to choose from; they depend on how many rows there are.
    """
    from ray import tune

    return {
        "learning_rate": tune.loguniform(5e-6, 1e-3),
        "batch_size": tune.choice(list(batch_size)),
        "warmup_ratio": tune.uniform(0.0, 0.2),
        "weight_decay": tune.loguniform(1e-3, 2e-1),
        "num_train_epochs": tune.choice(list(num_train_epochs)),
    }


def generation_space(
    batch_size: Sequence[int], num_train_epochs: Sequence[int], target_mask_prob: tuple[float, float]
) -> dict[str, Any]:
    """Domains for generation.

    Beams and length penalty are not among them: epochs are chosen by greedy decoding, which they do not change.

    Args:
        batch_size, num_train_epochs: the values to choose from.
        target_mask_prob: least and largest share of true target tokens hidden in training.
    """
    from ray import tune

    return {
        "learning_rate": tune.loguniform(1e-5, 2e-3),
        "batch_size": tune.choice(list(batch_size)),
        "warmup_ratio": tune.uniform(0.0, 0.2),
        "weight_decay": tune.loguniform(1e-3, 2e-1),
        "num_train_epochs": tune.choice(list(num_train_epochs)),
        "label_smoothing": tune.uniform(0.0, 0.2),
        "target_mask_prob": tune.uniform(*target_mask_prob),
    }
