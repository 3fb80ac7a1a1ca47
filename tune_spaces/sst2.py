"""SST-2: is a film review good or bad (GLUE).

pmlm sweep --benchmark sst2 --model CHECKPOINT --data_dir glue_data
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="sst2",
    task="sst2",
    metric="accuracy",
    space=partial(understanding_space, batch_size=(16, 32, 64), num_train_epochs=(3, 5, 10)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=8, finalists=2, grace_epochs=1),
    published=(
        Published("UniLMv2", {"accuracy": 95.1}),
        Published("UniLMv2 without relative bias", {"accuracy": 95.0}),
        Published("RoBERTa", {"accuracy": 94.8}),
        Published("XLNet", {"accuracy": 94.7}),
        Published("BERT", {"accuracy": 93.2}),
    ),
)
