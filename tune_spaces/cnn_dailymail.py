"""CNN/DailyMail: a news story in a few sentences.

    pmlm sweep --benchmark cnn_dailymail --model CHECKPOINT --data_dir cnn_dailymail

The published "ROUGE-L" of summaries is rougeLsum, sentence by sentence.
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GENERATION_MUTABLE, SUMMARY_RECIPE, generation_space

BENCHMARK = Benchmark(
    name="cnn_dailymail",
    task="cnn_dailymail",
    metric="rougeLsum",
    space=partial(generation_space, batch_size=(32, 64), num_train_epochs=(5, 10, 14), target_mask_prob=(0.3, 0.9)),
    paper_grid={**SUMMARY_RECIPE, "target_mask_prob": (0.7, 0.8), "length_penalty": (0.7,)},
    mutable=GENERATION_MUTABLE,
    seeds=(1, 2, 3, 4, 5),
    budget=Budget(num_samples=8, finalists=1, grace_epochs=1),
    published=(
        Published("UniLMv2 base", {"rouge1": 43.16, "rouge2": 20.42, "rougeLsum": 40.14}, "test"),
        Published("BART large", {"rouge1": 44.16, "rouge2": 21.28, "rougeLsum": 40.90}, "test"),
        Published("UniLM large", {"rouge1": 43.08, "rouge2": 20.43, "rougeLsum": 40.34}, "test"),
        Published("T5 base", {"rouge1": 42.05, "rouge2": 20.34, "rougeLsum": 39.40}, "test"),
        Published("BERTSumAbs", {"rouge1": 41.72, "rouge2": 19.39, "rougeLsum": 38.76}, "test"),
        Published("MASS base", {"rouge1": 42.12, "rouge2": 19.50, "rougeLsum": 39.01}, "test"),
        Published("Lead-3", {"rouge1": 40.42, "rouge2": 17.62, "rougeLsum": 36.67}, "test"),
    ),
)
