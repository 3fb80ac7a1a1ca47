"""SciTLDR: a paper's abstract in one sentence.

    pmlm sweep --benchmark scitldr --model CHECKPOINT --data_dir FOLDER

A worked example of data of one's own: files of pairs (`src`, `tgt`) under names of their own, lengths that fit them,
and as grid the paper's recipe for XSum, the nearest there is: also one sentence.
"""

from functools import partial

from tune_spaces.base import Benchmark, Budget
from tune_spaces.common import GENERATION_MUTABLE, SUMMARY_RECIPE, generation_space

BENCHMARK = Benchmark(
    name="scitldr",
    task="seq2seq",
    metric="rougeLsum",
    # About 2,000 pairs: many passes, and batches that leave enough updates.
    space=partial(generation_space, batch_size=(16, 32, 64), num_train_epochs=(10, 20), target_mask_prob=(0.2, 0.7)),
    paper_grid={**SUMMARY_RECIPE, "target_mask_prob": (0.4, 0.5), "length_penalty": (0.6,)},
    options={
        "train_file": "scitldr.train.jsonl",
        "validation_file": "scitldr.dev.jsonl",
        "test_file": "scitldr.test.jsonl",
        "max_length": 256,
        "max_target_length": 48,
    },
    mutable=GENERATION_MUTABLE,
    seeds=(1, 2, 3),
    budget=Budget(num_samples=16, finalists=2, grace_epochs=2),
)
