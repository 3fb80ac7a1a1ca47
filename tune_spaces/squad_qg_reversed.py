"""Questions from SQuAD, the other split.

    pmlm sweep --benchmark squad_qg_reversed --model CHECKPOINT --data_dir squad_qg

Zhao et al.'s split: `squad_qg` with dev and test exchanged. rougeL is coco-caption's, as in the papers; meteor needs
Java and the extra `meteor`.
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GENERATION_MUTABLE, QUESTION_RECIPE, generation_space

BENCHMARK = Benchmark(
    name="squad_qg_reversed",
    task="squad_qg_reversed",
    metric="bleu4",
    space=partial(generation_space, batch_size=(32, 48), num_train_epochs=(5, 10, 16), target_mask_prob=(0.0, 0.6)),
    paper_grid=QUESTION_RECIPE,
    mutable=GENERATION_MUTABLE,
    seeds=(1, 2, 3, 4, 5),
    budget=Budget(num_samples=8, finalists=2, grace_epochs=1),
    published=(
        Published("UniLMv2 base", {"bleu4": 26.29, "meteor": 27.16, "rougeL": 53.22}, "test"),
        Published("UniLM large", {"bleu4": 24.32, "meteor": 26.10, "rougeL": 52.69}, "test"),
        Published("Zhang & Bansal", {"bleu4": 20.76, "meteor": 24.20, "rougeL": 48.91}, "test"),
    ),
)
