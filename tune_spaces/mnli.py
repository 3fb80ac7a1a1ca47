"""MNLI: is a sentence entailed by another, contradicted, or neither (GLUE).

    pmlm sweep --benchmark mnli --model CHECKPOINT --data_dir glue_data

Chosen by the matched development set, whose figure stands beside the published one.
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="mnli",
    task="mnli",
    metric="accuracy",
    space=partial(understanding_space, batch_size=(16, 32, 64), num_train_epochs=(3, 5, 10)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=8, finalists=2, grace_epochs=1),
    published=(
        Published("UniLMv2", {"accuracy": 88.5}),
        Published("UniLMv2 without relative bias", {"accuracy": 88.4}),
        Published("RoBERTa", {"accuracy": 87.6}),
        Published("XLNet", {"accuracy": 86.8}),
        Published("BERT", {"accuracy": 84.5}),
    ),
)
