"""A fine-tuning epoch beside Hugging Face's `Trainer` with a BERT of the same size, on the same examples.

    python benchmarks/finetune_epoch.py --tokenizer FOLDER --glue glue_data --squad squad [--preset mini] [--rows 2500]

Both start from random weights and see the same token ids, batch size, dropout, bf16 products, AdamW, clipping at 1.0,
on one thread. The peer pads each batch to its longest row, once with the rows in random order (its default) and once
with `train_sampling_strategy="group_by_length"`. An epoch is timed from a built data set to the last update, the model
built and the optimizer included, nothing evaluated or saved; ours is the loop of `pmlm finetune`: its grouping, its
loader, its micro-batches, its step. Times are processor seconds of this process, all threads of it, taking turns.
Needs accelerate: `pip install -e .[bench]`.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from race import Ratio, race
from report import Report, options
from transformers.utils.logging import disable_progress_bar

from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.encode import encode_all
from pipelines.finetune.features import Features
from pipelines.finetune.job import Job, settle, settled_micro_batch
from pipelines.finetune.trainee import TrainingBatches, job_family, trainee
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.presets import preset
from pmlm_core.training import hardware
from pmlm_core.training.finetuning import finetuning_task
from pmlm_core.training.optimizer import set_learning_rate
from pmlm_core.training.schedule import learning_rate
from pmlm_core.training.step import train_step

OURS, PEER, GROUPED = "pmlm", "Trainer", "Trainer, group_by_length"
SHAPES = {"rte": 128, "squad1.1": 384}  # task -> max_length
_ARGUMENTS = {  # of a feature -> of a model of transformers
    "label": "labels",
    "start_position": "start_positions",
    "end_position": "end_positions",
}


class Slots:
    """Counts the places of all batches that a contestant computes, and how many of them hold a token."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.tokens = self.slots = 0

    def seen(self, batch: dict[str, Any]) -> dict[str, Any]:
        mask = batch["attention_mask"]
        self.tokens, self.slots = self.tokens + int(mask.sum()), self.slots + mask.numel()
        return batch

    def padding(self) -> str:
        return f"{1 - self.tokens / self.slots:.1%}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokenizer", required=True, help="folder made by `pmlm tokenizer`")
    parser.add_argument("--glue", help="folder of GLUE's tasks, for RTE")
    parser.add_argument("--squad", help="folder of SQuAD's files")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rows", type=int, default=2500, help="examples of each data set at most")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    report = Report(
        "finetune-epoch",
        "A fine-tuning epoch beside Trainer",
        f"{given.preset}, batches of {given.batch_size}, {given.precision}, one thread, processor time; the peer is "
        "transformers' Trainer with a BERT of that size. Ratios are of a round's times: median, least and largest.",
    )
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="pmlm-benchmark-") as scratch:
        model = fresh_checkpoint(given, Path(scratch) / "model")
        for task, folder in (("rte", given.glue), ("squad1.1", given.squad)):
            if folder:
                measure(report, given, encoded(given, task, folder, model, scratch), scratch)
    report.finish(given.save)


def fresh_checkpoint(given: argparse.Namespace, folder: Path) -> str:
    """What `pmlm pretrain` would leave, untrained."""
    tokenizer = TextTokenizer.load(given.tokenizer)
    ids: dict[str, Any] = {f"{name}_token_id": token for name, token in tokenizer.special_ids.as_dict().items()}
    config = PmlmConfig(vocab_size=tokenizer.vocab_size, **ids, **vars(preset(given.preset)))
    PmlmForPreTraining(config).save_pretrained(folder)
    tokenizer.save(str(folder))
    return str(folder)


def encoded(given: argparse.Namespace, task: str, folder: str, model: str, scratch: str) -> Job:
    """One epoch of the task, its examples encoded, as `pmlm finetune` settles it."""
    config = FinetuneConfig(
        task=task,
        model=model,
        data_dir=folder,
        output_dir=scratch,
        from_scratch=True,
        max_train_rows=given.rows,
        max_predict_rows=1,
        max_eval_rows=1,
        batch_size=given.batch_size,
        max_length=SHAPES[task],
        num_train_epochs=1,
        precision=given.precision,
    )
    job = encode_all(settle(config)[0])
    longest = TrainingBatches(job, job_family(job)).longest
    return replace(job, micro_batch_size=settled_micro_batch(job.config, job.recipe, longest))


def measure(report: Report, given: argparse.Namespace, job: Job, scratch: str) -> None:
    """Print the table of one task."""
    lengths = Features(Path(job.train.features)).lengths
    slots = {name: Slots() for name in (OURS, PEER, GROUPED)}
    rows = examples(job)
    ways: dict[str, Callable[..., None]] = {
        OURS: lambda steps=None: ours(job, slots[OURS], steps),
        PEER: lambda steps=-1: trainer(given, job, rows, "random", slots[PEER], scratch, steps),
        GROUPED: lambda steps=-1: trainer(given, job, rows, "group_by_length", slots[GROUPED], scratch, steps),
    }
    for name, way in ways.items():
        way(2)  # imports, kernels, memory
        slots[name].clear()
    samples = race(ways, given.rounds)
    lines = []
    for name, seconds in samples.items():
        ratio = "1" if name == OURS else str(Ratio.of(samples, name, OURS))
        rate = len(lengths) / sorted(seconds)[len(seconds) // 2]
        lines.append((name, f"{rate:.1f}", slots[name].padding(), ratio))
    report.table(
        f"{job.task.name}: {len(lengths):,} rows, {lengths.mean():.0f} tokens on average, {lengths.max()} at most; "
        f"{given.rounds} rounds",
        ("way", "examples/s", "padding", "times as long as ours"),
        lines,
    )


def ours(job: Job, slots: Slots, steps: int | None = None) -> None:
    """The epoch as `pipelines/finetune/loop.py` makes it, without journal, scores and checkpoints."""
    config, recipe = job.config, job.recipe
    precision = hardware.set_up(use_gpu=False, threads=1, precision=config.precision)
    trained = trainee(job, precision, None)
    batches = TrainingBatches(job, job_family(job))
    work = finetuning_task(job.task.kind, recipe.label_smoothing)
    loader = batches.loader(precision, 0, 1, 0, work.count)
    for step, micro_batches in loader:
        if step == steps:
            break
        for _, batch in micro_batches:
            slots.seen(batch)
        rate = learning_rate(
            step, peak=recipe.learning_rate, kind="linear", warmup_steps=0, max_steps=batches.max_steps
        )
        set_learning_rate(trained.optimizer, rate)
        train_step(
            trained.model,
            trained.optimizer,
            micro_batches,
            work,
            step=step,
            seed=job.seed,
            precision=precision,
            max_grad_norm=config.max_grad_norm,
            counted=loader.measured[0],
        )


def trainer(
    given: argparse.Namespace,
    job: Job,
    rows: Sequence[Any],
    order: str,
    slots: Slots,
    scratch: str,
    steps: int = -1,
) -> None:
    """The same epoch by transformers."""
    import transformers as hf

    shape = {**vars(preset(given.preset)), "num_labels": 2}
    config = hf.BertConfig(vocab_size=job.source.vocab_size, **shape)
    head = "QuestionAnswering" if job.task.kind == "question_answering" else "SequenceClassification"
    pad = hf.DataCollatorWithPadding(hf.AutoTokenizer.from_pretrained(job.source.path))
    arguments = hf.TrainingArguments(
        f"{scratch}/trainer",
        per_device_train_batch_size=given.batch_size,
        num_train_epochs=1,
        max_steps=steps,
        learning_rate=job.recipe.learning_rate,
        weight_decay=job.recipe.weight_decay,
        max_grad_norm=1.0,
        bf16=given.precision == "bf16",
        use_cpu=True,
        train_sampling_strategy=order,
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    peer = hf.Trainer(
        model=getattr(hf, f"BertFor{head}")(config),
        args=arguments,
        train_dataset=rows,
        data_collator=lambda batch: slots.seen(pad(batch)),
    )
    peer.remove_callback(hf.PrinterCallback)
    peer.train()


def examples(job: Job) -> Sequence[Any]:
    """The job's features as a data set of transformers: plain lists, in memory."""
    features = Features(Path(job.train.features))
    return [
        {
            _ARGUMENTS.get(name, name): value.tolist() if hasattr(value, "tolist") else value
            for name, value in row.items()
        }
        for row in features.rows(range(len(features)))
    ]


if __name__ == "__main__":
    main()
