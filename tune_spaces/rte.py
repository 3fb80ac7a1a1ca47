"""RTE: does one sentence entail another (GLUE).

pmlm sweep --benchmark rte --model CHECKPOINT --data_dir glue_data
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="rte",
    task="rte",
    metric="accuracy",
    space=partial(understanding_space, batch_size=(16, 32), num_train_epochs=(5, 10, 15)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=16, finalists=3, grace_epochs=2),
    published=(
        Published("UniLMv2", {"accuracy": 81.3}),
        Published("UniLMv2 without relative bias", {"accuracy": 78.1}),
        Published("RoBERTa", {"accuracy": 78.7}),
        Published("XLNet", {"accuracy": 74.0}),
        Published("BERT", {"accuracy": 68.6}),
    ),
)
