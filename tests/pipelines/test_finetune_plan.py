"""What `pmlm finetune --dry_run` reckons: operations against torch's own count, time, and its text."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import make_checkpoint, options_for, write_pairs, write_questions, write_reviews
from torch.utils.flop_counter import FlopCounterMode

from pipelines.finetune import plan
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.families import family_of
from pipelines.finetune.job import settle
from pipelines.finetune.source import build_model
from pipelines.finetune.splits import read_chosen
from pipelines.finetune.tell import tell_training
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.training.finetuning import finetuning_task
from pmlm_core.training.peak import Peak


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "final", sample_tokenizer_dir)


@pytest.fixture(autouse=True)
def peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor of 10 GFLOP/s a CPU, so that times are the same on every machine."""
    monkeypatch.setattr(plan, "cpu_peak", lambda cpus, precision: Peak(10e9 * cpus, "a stand-in"))
    monkeypatch.setattr(plan, "gpu_peak", lambda: Peak(1e12, "data sheet of a stand-in"))


@pytest.mark.parametrize(
    ("task", "write", "more"),
    [
        ("classification", write_reviews, {}),
        ("qa", write_questions, {"doc_stride": 16}),
        ("seq2seq", write_pairs, {"max_target_length": 8}),
    ],
)
def test_operations_are_those_torch_counts(tmp_path: Path, model: str, task: str, write: Any, more: dict[str, Any]):
    job, _ = settle(FinetuneConfig(**options_for(task, model, write(tmp_path / "data"), tmp_path, **more)))
    family = family_of(job.task, job.recipe, TextTokenizer.load(job.source.path))
    features = family.encode(list(read_chosen(job.task, job.config.data_dir, job.train.split)), training=True)
    (row,) = features[:1]
    shape = plan.sized(job).shape
    net = build_model(job.task, job.recipe, job.source, from_scratch=False, seed=0, dropout=(0.0, 0.0)).train()
    batch = family.collate([row], streams=[1])
    with FlopCounterMode(display=False) as counter:
        finetuning_task(job.task.kind).losses(net, batch)[0].backward()
    read, target = len(row["input_ids"]), len(row.get("target_ids", ()))
    # The head of questions has no dense layer, which is reckoned for all: little, and less in a model of real size.
    reckoned = plan.flops_per_row(job.task.kind, shape, job.source.vocab_size, read, target)
    assert reckoned == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_time_follows_what_is_asked(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    reviews = write_reviews(tmp_path / "data")
    options = options_for("classification", model, reviews, tmp_path, num_train_epochs=500)
    job, _ = settle(FinetuneConfig(**options))
    seconds = plan.sized(job).flops_per_epoch * 500 / (10e9 * plan.CPU_MFU)
    text = "\n".join(plan.describe(job))
    short = replace(job, recipe=replace(job.recipe, num_train_epochs=1))
    assert "1 epoch of " in "\n".join(plan.describe(short))
    assert ", 1 seed: " in "\n".join(plan.describe(short))
    tell_training(replace(short, micro_batch_size=1, threads=1), 1, known=False)
    assert ", 1 epoch of batches of 8, 1 update, " in " ".join(capsys.readouterr().out.split())
    assert f"time here    {plan.duration(seconds)} on 1 of this machine's CPUs, at an assumed 35% of 10 GFLOP/s" in text
    assert "scoring and predictions come on top" in text

    def flops(**changes: Any) -> float:
        told = "\n".join(plan.describe(replace(job, config=replace(job.config, **changes))))
        return float(re.search(r"operations +(\S+) FLOP", told)[1])  # type: ignore[index]

    assert flops(seeds="1,2,3") == pytest.approx(3 * flops(), rel=0.01)
    assert "of 20 GFLOP/s" in "\n".join(plan.describe(replace(job, config=replace(job.config, num_workers=2))))


def test_a_gpu_run_is_told_in_gpu_time(tmp_path: Path, model: str):
    options = options_for("classification", model, write_reviews(tmp_path / "data"), tmp_path, use_gpu=True)
    text = "\n".join(plan.describe(settle(FinetuneConfig(**options))[0]))
    assert "on 1 H100, at an assumed 20% of the data sheet of a stand-in" in text
    assert "time here" not in text
