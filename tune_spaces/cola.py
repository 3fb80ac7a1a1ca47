"""CoLA: is a sentence good English (GLUE).

pmlm sweep --benchmark cola --model CHECKPOINT --data_dir glue_data
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="cola",
    task="cola",
    metric="matthews",
    space=partial(understanding_space, batch_size=(16, 32), num_train_epochs=(5, 10, 15)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=16, finalists=3, grace_epochs=2),
    published=(
        Published("UniLMv2", {"matthews": 65.2}),
        Published("UniLMv2 without relative bias", {"matthews": 63.8}),
        Published("RoBERTa", {"matthews": 63.6}),
        Published("XLNet", {"matthews": 60.2}),
        Published("BERT", {"matthews": 58.9}),
    ),
)
