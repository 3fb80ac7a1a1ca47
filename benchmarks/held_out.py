"""Held-out AE and PAR losses of checkpoints, beside the unigram loss that knows no context at all.

    python benchmarks/held_out.py --data_dir outputs/mini/blocks outputs/mini/pretrain/RUN/checkpoints/step-*

Every predicted position shows [MASK], so AE and PAR differ in nothing but what they are given (docs/method.md). The
unigram loss is the cross-entropy of the held-out masked tokens under the frequencies of the training tokens (first
200,000 rows, every token counted once more than seen).
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from pmlm_core.corpus.blocks import BlockSet
from pmlm_core.model.collate import collate, max_predictions
from pmlm_core.model.objectives import Objective
from pmlm_core.model.pretraining import PmlmForPreTraining
from pmlm_core.training.pretraining import evaluate, pretraining_task
from pmlm_core.training.step import Batch, Precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--rows", type=int, default=2048, help="held-out rows (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32)
    arguments = parser.parse_args()

    held_out = BlockSet.open(arguments.data_dir, split="validation")
    count = min(arguments.rows, len(held_out))
    unigram = _unigram(arguments.data_dir, held_out, count)
    print(f"{count} held-out rows of {arguments.data_dir}; unigram loss {unigram:.4f}")
    print(f"{'checkpoint':<28} {'AE':>8} {'right':>7} {'PAR':>8} {'right':>7}")
    for folder in arguments.checkpoints:
        model = PmlmForPreTraining.from_pretrained(folder, objective="AE+PAR").eval()
        batches = _batches(held_out, count, arguments.batch_size)
        scores = evaluate(model, batches, pretraining_task(Objective.AE_PAR), Precision(torch.device("cpu"), "fp32"))
        assert scores is not None
        print(
            f"{folder.name:<28} {scores['ae_loss']:>8.4f} {scores['ae_accuracy']:>7.2%} "
            f"{scores['par_loss']:>8.4f} {scores['par_accuracy']:>7.2%}",
            flush=True,
        )


def _batches(held_out: BlockSet, count: int, size: int) -> list[Batch]:
    manifest = held_out.manifest
    slots = max_predictions(manifest.max_length, manifest.config["mask_prob"], manifest.config["max_block"])
    batches: list[Batch] = []
    for start in range(0, count, size):
        rows = held_out.rows(np.arange(start, min(start + size, count)), 0).all_shown_as(manifest.special_ids.mask)
        batches.append(
            collate(
                rows,
                objective="AE+PAR",
                max_length=manifest.max_length,
                max_predictions=slots,
                special_ids=manifest.special_ids,
            )
        )
    return batches


def _unigram(data_dir: str, held_out: BlockSet, count: int) -> float:
    train = BlockSet.open(data_dir, split="train")
    counts = np.ones(train.manifest.vocab_size)
    for start in range(0, min(len(train), 200_000), 10_000):
        rows = train.rows(np.arange(start, min(start + 10_000, len(train))), 0)
        counts += np.bincount(rows.input_ids, minlength=len(counts))
    counts[list(train.manifest.special_ids.as_dict().values())] = 1.0
    labels = np.concatenate(
        [batch["labels"].numpy()[batch["labels"].numpy() != -100] for batch in _batches(held_out, count, 256)]
    )
    return float(-np.log(counts / counts.sum())[labels].mean())


if __name__ == "__main__":
    main()
