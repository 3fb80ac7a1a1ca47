"""WNLI: whom does a pronoun mean (GLUE).

    pmlm sweep --benchmark wnli --model CHECKPOINT --data_dir glue_data

Its development set has the training set's sentences with other labels, so that few models beat always saying "0";
the paper has no figure for it.
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget
from tune_spaces.common import GLUE_GRID, understanding_space

BENCHMARK = Benchmark(
    name="wnli",
    task="wnli",
    metric="accuracy",
    space=partial(understanding_space, batch_size=(16, 32), num_train_epochs=(5, 10, 15)),
    paper_grid=GLUE_GRID,
    budget=Budget(num_samples=16, finalists=3, grace_epochs=2),
)
