"""MRPC: do two sentences say the same (GLUE).

pmlm sweep --benchmark mrpc --model CHECKPOINT --data_dir glue_data
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="mrpc",
    task="mrpc",
    metric="accuracy",
    space=partial(understanding_space, batch_size=(16, 32), num_train_epochs=(5, 10, 15)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=16, finalists=3, grace_epochs=2),
    published=(
        Published("UniLMv2", {"accuracy": 91.8}),
        Published("UniLMv2 without relative bias", {"accuracy": 91.2}),
        Published("RoBERTa", {"accuracy": 90.2}),
        Published("XLNet", {"accuracy": 88.2}),
        Published("BERT", {"accuracy": 87.3}),
    ),
)
