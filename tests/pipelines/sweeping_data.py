"""A benchmark of one's own on tiny reviews, for tests of sweeps."""

from pathlib import Path
from typing import Any

from finetuning_data import make_checkpoint, write_reviews

BENCHMARK = '''"""Reviews: about a ship or a house."""

from tune_spaces.base import Benchmark, Budget, Published


def space():
    from ray import tune

    return {
        "learning_rate": tune.loguniform(1e-4, 1e-2),
        "weight_decay": tune.uniform(0.0, 0.1),
        "batch_size": tune.choice([8]),
    }


BENCHMARK = Benchmark(
    name="reviews",
    task="classification",
    metric="accuracy",
    space=space,
    paper_grid={"learning_rate": (1e-3, 3e-3), "batch_size": (8,)},
    options={
        "max_length": 48,
        "num_train_epochs": 3,
        "micro_batch_size": 4,
        "logging_steps": 4,
        "precision": "fp32",
    },
    seeds=(1, 2),
    budget=Budget(num_samples=3, finalists=1, grace_epochs=1),
    published=(Published("a person", {"accuracy": 100.0}),),
)
'''


def make_sweep(folder: Path, tokenizer_dir: str, **options: Any) -> dict[str, Any]:
    """Options of a very small sweep; its checkpoint, files and benchmark are made in `folder`."""
    checkpoint = folder / "pretrain" / "final"
    if not checkpoint.exists():
        make_checkpoint(checkpoint, tokenizer_dir)
        write_reviews(folder / "data")
        (folder / "reviews.py").write_text(BENCHMARK)
    return {
        "benchmark": [str(folder / "reviews.py")],
        "model": str(checkpoint),
        "data_dir": [str(folder / "data")],
        "output_dir": str(folder / "out"),
        "run_name": "sweep",
        "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "register_model": "none",
        **options,
    }
