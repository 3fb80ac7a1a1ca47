"""Does the sentence answer the question? 600 pairs in QNLI's form, made from paragraphs of Wikipedia.

pmlm sweep --config recipes/sweep/demo.yaml
"""

from typing import Any

from tune_spaces.base import Benchmark, Budget


def space() -> dict[str, Any]:
    """A tiny model wants large learning rates."""
    from ray import tune

    return {"learning_rate": tune.loguniform(1e-4, 2e-3), "rel_pos_lr_scale": tune.choice([1.0, 10.0])}


BENCHMARK = Benchmark(
    name="demo_pairs",
    task="qnli",
    metric="accuracy",
    space=space,
    paper_grid={"learning_rate": (3e-4, 1e-3)},
    options={"max_length": 96, "num_train_epochs": 3, "batch_size": 16, "logging_steps": 20},
    seeds=(1, 2),
    budget=Budget(num_samples=4, finalists=1, grace_epochs=1),
)
