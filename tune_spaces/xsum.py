"""XSum: a news story in one sentence.

    pmlm sweep --benchmark xsum --model CHECKPOINT --data_dir xsum

The published "ROUGE-L" of summaries is rougeLsum, sentence by sentence.
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GENERATION_MUTABLE, SUMMARY_RECIPE, generation_space

BENCHMARK = Benchmark(
    name="xsum",
    task="xsum",
    metric="rougeLsum",
    space=partial(generation_space, batch_size=(32, 64), num_train_epochs=(5, 10, 14), target_mask_prob=(0.2, 0.7)),
    paper_grid={**SUMMARY_RECIPE, "target_mask_prob": (0.4, 0.5), "length_penalty": (0.6,)},
    mutable=GENERATION_MUTABLE,
    seeds=(1, 2, 3, 4, 5),
    budget=Budget(num_samples=8, finalists=1, grace_epochs=1),
    published=(
        Published("UniLMv2 base", {"rouge1": 44.00, "rouge2": 21.11, "rougeLsum": 36.08}, "test"),
        Published("BART large", {"rouge1": 45.14, "rouge2": 22.27, "rougeLsum": 37.25}, "test"),
        Published("BERTSumAbs", {"rouge1": 38.76, "rouge2": 16.33, "rougeLsum": 31.15}, "test"),
        Published("MASS base", {"rouge1": 39.75, "rouge2": 17.24, "rougeLsum": 31.95}, "test"),
        Published("Lead-3", {"rouge1": 16.30, "rouge2": 1.60, "rougeLsum": 11.95}, "test"),
    ),
)
