"""QQP: do two questions ask the same (GLUE).

pmlm sweep --benchmark qqp --model CHECKPOINT --data_dir glue_data
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="qqp",
    task="qqp",
    metric="accuracy",
    space=partial(understanding_space, batch_size=(16, 32, 64), num_train_epochs=(3, 5, 10)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=8, finalists=2, grace_epochs=1),
    published=(
        Published("UniLMv2", {"accuracy": 91.7}),
        Published("UniLMv2 without relative bias", {"accuracy": 91.8}),
        Published("RoBERTa", {"accuracy": 91.9}),
        Published("XLNet", {"accuracy": 91.4}),
        Published("BERT", {"accuracy": 91.3}),
    ),
)
