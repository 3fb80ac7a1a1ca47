"""SQuAD v2.0: a span of a passage answers a question, or nothing does.

pmlm sweep --benchmark squad2.0 --model CHECKPOINT --data_dir squad
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import SQUAD_RECIPE, understanding_space

BENCHMARK = Benchmark(
    name="squad2.0",
    task="squad2.0",
    metric="f1",
    space=partial(understanding_space, batch_size=(16, 32, 64), num_train_epochs=(2, 3, 4)),
    paper_grid=SQUAD_RECIPE,
    budget=Budget(num_samples=8, finalists=2, grace_epochs=1),
    published=(
        Published("UniLMv2", {"f1": 86.1, "exact": 83.3}),
        Published("UniLMv2 without relative bias", {"f1": 85.2, "exact": 82.4}),
        Published("RoBERTa", {"f1": 83.7, "exact": 80.5}),
        Published("BERT", {"f1": 76.3, "exact": 73.7}),
    ),
)
