"""STS-B: how alike are two sentences, 0 to 5 (GLUE).

pmlm sweep --benchmark stsb --model CHECKPOINT --data_dir glue_data
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="stsb",
    task="stsb",
    metric="pearson",
    space=partial(understanding_space, batch_size=(16, 32), num_train_epochs=(5, 10, 15)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=16, finalists=3, grace_epochs=2),
    published=(
        Published("UniLMv2", {"pearson": 91.0}),
        Published("UniLMv2 without relative bias", {"pearson": 91.2}),
        Published("RoBERTa", {"pearson": 91.2}),
        Published("XLNet", {"pearson": 89.5}),
        Published("BERT", {"pearson": 89.5}),
    ),
)
