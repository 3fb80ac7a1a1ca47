"""SQuAD v1.1: the answer to a question is a span of a passage.

pmlm sweep --benchmark squad1.1 --model CHECKPOINT --data_dir squad
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import SQUAD_RECIPE, understanding_space

BENCHMARK = Benchmark(
    name="squad1.1",
    task="squad1.1",
    metric="f1",
    space=partial(understanding_space, batch_size=(16, 32, 64), num_train_epochs=(2, 3, 4)),
    paper_grid=SQUAD_RECIPE,
    budget=Budget(num_samples=8, finalists=2, grace_epochs=1),
    published=(
        Published("UniLMv2", {"f1": 93.1, "exact_match": 87.1}),
        Published("UniLMv2 without relative bias", {"f1": 93.0, "exact_match": 86.7}),
        Published("RoBERTa", {"f1": 91.5, "exact_match": 84.6}),
        Published("BERT", {"f1": 88.5, "exact_match": 80.8}),
    ),
)
