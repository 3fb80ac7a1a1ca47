"""Questions from SQuAD's passages and answers.

    pmlm sweep --benchmark squad_qg --model CHECKPOINT --data_dir squad_qg

Du et al.'s split. rougeL is coco-caption's, as in the papers; meteor needs Java and the extra `meteor`.
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget, Published
from tune_spaces.common import GENERATION_MUTABLE, QUESTION_RECIPE, generation_space

BENCHMARK = Benchmark(
    name="squad_qg",
    task="squad_qg",
    metric="bleu4",
    space=partial(generation_space, batch_size=(32, 48), num_train_epochs=(5, 10, 16), target_mask_prob=(0.0, 0.6)),
    paper_grid=QUESTION_RECIPE,
    mutable=GENERATION_MUTABLE,
    seeds=(1, 2, 3, 4, 5),
    budget=Budget(num_samples=8, finalists=2, grace_epochs=1),
    published=(
        Published("UniLMv2 base", {"bleu4": 24.43, "meteor": 26.34, "rougeL": 51.97}, "test"),
        Published("UniLM large", {"bleu4": 22.78, "meteor": 25.49, "rougeL": 51.57}, "test"),
        Published("Zhang & Bansal", {"bleu4": 18.37, "meteor": 22.65, "rougeL": 46.68}, "test"),
    ),
)
