"""Every benchmark from one small checkpoint, beside the same model without pre-training and an ignorant baseline.

    python benchmarks/finetune.py --model outputs/mini/pretrain/final --data DATA [--output_dir FOLDER] [--jobs 2]
        [--only SciTLDR] [--set max_train_rows=800]

Runs `pmlm finetune` for each task and both kinds of weights, `jobs` at a time on one thread each, and prints a table in
Markdown. Subsets and lengths are for CPUs; the table says which. Run again, it goes on where it stopped. DATA holds
`glue/` (official TSV), `squad/`, `question_generation/` (Du et al.'s split) and `summarization/` (JSON lines with src
and tgt: cnn_dailymail, xsum, scitldr, dialogsum).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WEIGHTS = {"pre-trained": [], "from scratch": ["--from_scratch", "true"]}
PAIRS = {"learning_rate": 3e-4, "num_train_epochs": 3}
QUESTIONS = {
    "learning_rate": 5e-4,
    "rel_pos_lr_scale": 10,
    "max_eval_rows": 500,
    "max_predict_rows": 2000,
    "num_train_epochs": 2,
    "max_length": 256,
}
TEXTS = {
    "learning_rate": 5e-4,
    "rel_pos_lr_scale": 10,
    "num_beams": 3,
    "max_eval_rows": 50,
    "max_predict_rows": 200,
    "max_length": 256,
}


@dataclass(frozen=True)
class Job:
    """One row of the table."""

    name: str
    task: str
    folder: str
    options: dict[str, Any] = field(default_factory=dict)
    split: str = "dev"
    figures: tuple[str, ...] = ()


ROUGE = ("rouge1", "rouge2", "rougeLsum")


def _of_summarization(stem: str) -> dict[str, str]:
    parts = ("train", "dev", "test")
    names = ("train_file", "validation_file", "test_file")
    return {name: f"{stem}.{part}.jsonl" for name, part in zip(names, parts, strict=True)}


JOBS = (
    Job("CoLA", "cola", "glue", {**PAIRS, "num_train_epochs": 5, "max_length": 64}),
    Job("SST-2", "sst2", "glue", {**PAIRS, "max_train_rows": 20_000, "max_length": 64}),
    Job("MRPC", "mrpc", "glue", {**PAIRS, "num_train_epochs": 5, "max_length": 128}),
    Job("STS-B", "stsb", "glue", {**PAIRS, "num_train_epochs": 5, "max_length": 128}),
    Job("QQP", "qqp", "glue", {**PAIRS, "max_length": 96}),
    Job("MNLI", "mnli", "glue", {**PAIRS, "max_length": 128}, "dev_matched"),
    Job("QNLI", "qnli", "glue", {**PAIRS, "max_length": 160}),
    Job("RTE", "rte", "glue", {**PAIRS, "num_train_epochs": 5, "max_length": 256}),
    Job("WNLI", "wnli", "glue", {**PAIRS, "num_train_epochs": 5, "max_length": 128}),
    Job(
        "SQuAD 1.1",
        "squad1.1",
        "squad",
        {**QUESTIONS, "max_train_rows": 10_000},
        figures=("f1", "exact_match"),
    ),
    Job("SQuAD 2.0", "squad2.0", "squad", QUESTIONS, figures=("f1", "best_f1", "HasAns_f1")),
    Job(
        "question generation (Du)",
        "squad_qg",
        "question_generation/du2017",
        {**TEXTS, "max_train_rows": 8000, "num_train_epochs": 2, "max_length": 192, "max_target_length": 32},
        "test",
        ("bleu4", "meteor", "rougeL"),
    ),
    Job(
        "CNN/DailyMail",
        "cnn_dailymail",
        "cnn_dailymail",
        {**TEXTS, "num_train_epochs": 6, "max_target_length": 96},
        figures=ROUGE,
    ),
    Job("XSum", "xsum", "xsum", {**TEXTS, "num_train_epochs": 6, "max_target_length": 48}, "test", ROUGE),
    Job(
        "SciTLDR",
        "seq2seq",
        "summarization",
        {**TEXTS, **_of_summarization("scitldr"), "num_train_epochs": 4, "max_target_length": 48},
        "test",
        ROUGE,
    ),
    Job(
        "DialogSum",
        "seq2seq",
        "summarization",
        {
            **TEXTS,
            **_of_summarization("dialogsum"),
            "max_train_rows": 4000,
            "num_train_epochs": 3,
            "max_target_length": 64,
        },
        "test",
        ROUGE,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/finetune-mini"))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument(
        "--set", nargs="*", default=[], help="options of pmlm finetune in place of the script's: max_train_rows=800"
    )
    given = parser.parse_args()
    chosen = [job for job in JOBS if not given.only or job.name in given.only]
    split_samples(given.data / "summarization", given.output_dir / "samples")
    with ThreadPoolExecutor(given.jobs) as pool:
        work = [pool.submit(finetune, job, weights, given) for job in chosen for weights in WEIGHTS]
    for each in work:
        each.result()
    table(chosen, given)


def split_samples(source: Path, target: Path) -> None:
    """Samples that lack a split, cut so that each has what is needed: the first part trains, the last is scored."""
    cuts = {
        "cnn_dailymail": {"train": ("validation", 0, 800), "dev": ("validation", 800, 1000)},
        "xsum": {"train": ("train", 0, 1099), "dev": ("test", 0, 200), "test": ("test", 200, 1000)},
    }
    for name, splits in cuts.items():
        (target / name).mkdir(parents=True, exist_ok=True)
        for split, (file, start, stop) in splits.items():
            path = source / f"{name}.{file}.sample.jsonl"
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                (target / name / f"{split}.jsonl").write_text("".join(lines[start:stop]), encoding="utf-8")


def folder_of(job: Job, given: argparse.Namespace) -> Path:
    own = given.output_dir / "samples" / job.folder
    return own if own.exists() else given.data / job.folder


def run_of(job: Job, weights: str, given: argparse.Namespace) -> Path:
    name = f"{job.name} {weights}".lower()
    return given.output_dir / "".join(c if c.isalnum() or c in ".-" else "_" for c in name)


def finetune(job: Job, weights: str, given: argparse.Namespace) -> None:
    run = run_of(job, weights, given)
    options = {
        "task": job.task,
        "model": given.model,
        "data_dir": folder_of(job, given),
        "output_dir": run.parent,
        "run_name": run.name,
        "cpus_per_worker": 1,
        **job.options,
        **dict(each.split("=", 1) for each in given.set),
    }
    command = [sys.executable, "-m", "pipelines.cli", "finetune", *WEIGHTS[weights]]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with Path(f"{run}.log").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    print(f"{job.name}, {weights}: {'done' if code == 0 else f'failed, see {run}.log'}", file=sys.stderr, flush=True)


def table(jobs: Sequence[Job], given: argparse.Namespace) -> None:
    print("| task | rows | figure | baseline | from scratch | pre-trained |\n|---|---|---|---|---|---|")
    for job in jobs:
        found = {weights: run_of(job, weights, given) / "scores.json" for weights in WEIGHTS}
        results = {weights: json.loads(path.read_text()) for weights, path in found.items() if path.exists()}
        if len(results) < len(WEIGHTS):
            print(f"| {job.name} | | | | | |")
            continue
        one = results["pre-trained"]
        names = job.figures or tuple(dict.fromkeys((one["metric"], *one["summary"][job.split])))
        scored = one["rows"][job.split]
        base = one.get("baselines", {}).get(job.split, {}).get("scores", {})
        rows = (
            f"{one['rows']['train']['used']:,} of {one['rows']['train']['in_files']:,}; {scored['used']:,} {job.split}"
        )
        cells = [
            [_figure(source, name) for name in names]
            for source in (base, *(_means(results[w], job.split) for w in reversed(WEIGHTS)))
        ]
        print(f"| {job.name} | {rows} | {' / '.join(names)} | {' | '.join(' / '.join(cell) for cell in cells)} |")


def _means(result: dict[str, Any], split: str) -> dict[str, float]:
    return {name: statistics["mean"] for name, statistics in result["summary"][split].items()}


def _figure(figures: dict[str, float], name: str) -> str:
    return f"{figures[name]:.1f}" if name in figures else "-"


if __name__ == "__main__":
    main()
