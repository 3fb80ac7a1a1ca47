"""A paper's abstract in one sentence: 160 examples of SciTLDR.

pmlm sweep --config recipes/sweep/demo.yaml
"""

from typing import Any

from tune_spaces.base import Benchmark, Budget


def space() -> dict[str, Any]:
    """A tiny model wants large learning rates."""
    from ray import tune

    return {"learning_rate": tune.loguniform(3e-4, 3e-3), "target_mask_prob": tune.choice([0.0, 0.4])}


BENCHMARK = Benchmark(
    name="demo_abstracts",
    task="seq2seq",
    metric="rouge1",
    space=space,
    paper_grid={"learning_rate": (5e-4, 1e-3)},
    options={
        "max_length": 128,
        "max_target_length": 32,
        "num_train_epochs": 3,
        "batch_size": 16,
        "num_beams": 2,
        "rel_pos_lr_scale": 10.0,
        "max_eval_rows": 20,
        "logging_steps": 10,
    },
    seeds=(1, 2),
    budget=Budget(num_samples=2, finalists=1, grace_epochs=1),
)
