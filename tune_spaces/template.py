"""A benchmark of your own: copy this file, change it, give its path.

    cp tune_spaces/template.py my_space.py
    pmlm sweep --benchmark my_space.py --model CHECKPOINT --data_dir my_data

As it stands: classification. `my_data/` holds `train.tsv` and `dev.tsv` (and `test.tsv` if there is one), tables whose
first line names the columns `text` and `label`. CSV, JSON lines and Parquet are read as well.
"""

from typing import Any

from tune_spaces.base import Benchmark, Budget


def space() -> dict[str, Any]:
    """What is searched: options of `pmlm finetune`, of those in `SEARCHABLE` (tune_spaces/base.py)."""
    from ray import tune  # here, not above: the import takes seconds, and whoever only lists benchmarks need not wait

    return {
        "learning_rate": tune.loguniform(5e-6, 1e-3),  # a base model wants the low end, a small one the high end
        "batch_size": tune.choice([16, 32]),
        "warmup_ratio": tune.uniform(0.0, 0.2),
        "weight_decay": tune.loguniform(1e-3, 2e-1),
        "num_train_epochs": tune.choice([5, 10]),
    }


BENCHMARK = Benchmark(
    name="my_task",  # of the folder and, after "pmlm-", of the MLflow experiment
    task="classification",  # or regression (metric "pearson"), qa ("f1"), seq2seq ("rougeLsum")
    metric="accuracy",  # of dev.tsv; a classification also has "f1_macro" and "matthews" ("f1" if labels are 0 and 1)
    space=space,
    # What the strategy `paper_grid` tries: every combination, here 2 x 2, each with every seed.
    paper_grid={"learning_rate": (2e-5, 2e-4), "num_train_epochs": (5, 10)},
    # What every trial has. Whatever stands neither here nor above is the task's recipe (`pmlm finetune --help`).
    options={"text_column": "text", "label_column": "label", "max_length": 128},
    seeds=(1, 2, 3),
    budget=Budget(num_samples=16, finalists=2, grace_epochs=2),
    # Results to compare with, if there are any (import Published above):
    # published=(Published("Somebody et al.", {"accuracy": 90.1}, "test"),),
)
