"""Parts of fine-tuning: configuration, splits and subsets, features on disk, blank micro-batches, several workers."""

import json
import multiprocessing
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from finetuning_data import make_checkpoint, options_for, write_pairs, write_reviews

from pipelines.finetune import encode
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.encode import Work, encode_split
from pipelines.finetune.epochs import best_epoch, stands_still, worth
from pipelines.finetune.features import Drafts, Features, write_part
from pipelines.finetune.job import Job, settle
from pipelines.finetune.loop import finetune
from pipelines.finetune.results import summary
from pipelines.finetune.run import _encoded
from pipelines.finetune.rundir import read_scores, seed_folder
from pipelines.finetune.source import build_model, open_source
from pipelines.finetune.splits import Rejects, read_chosen, survey
from pipelines.finetune.trainee import TrainingBatches, job_family
from pipelines.run_folder import write_record
from pipelines.team import Team
from pmlm_core.errors import CheckpointError, ConfigError, DataError
from pmlm_core.model import PmlmForPreTraining
from pmlm_core.tasks.registry import get_task
from pmlm_core.training.finetuning import BLANK, finetuning_task
from pmlm_core.training.step import Precision


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "final", sample_tokenizer_dir)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews")


def job_for(options: dict[str, Any], seed: int = 0) -> Job:
    job, _ = settle(FinetuneConfig(**options))
    job = _encoded(job, known=False)
    job = replace(job, run=seed_folder(job.run, seed), seed=seed, attempt="test")
    write_record(job.run, {})
    return job


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task": "rtee"}, r"task 'rtee' is not known; did you mean 'rte'\? tasks are cola"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"warmup_ratio": 1.5}, "warmup_ratio must be from 0 to below 1"),
        ({"seeds": "1,1"}, "different numbers, as 1,2,3,4,5"),
        ({"seeds": "one"}, "different numbers"),
        ({"run_name": "a/b"}, "plain folder name"),
        ({"output_dir": "s3://bucket/runs", "upload_dir": "there"}, "in a store already"),
        ({"batch_size": 10, "num_workers": 4}, "num_workers may be 1, 2 or 5"),
    ],
)
def test_refusals_say_what_and_the_way_out(options: dict[str, Any], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        FinetuneConfig(**{"task": "rte", "model": "m", "data_dir": "d", **options}).validate()


def test_what_is_missing_is_said_before_anything_heavy(tmp_path: Path, model: str, reviews: str):
    options = options_for("classification", model, reviews, tmp_path)
    with pytest.raises(ConfigError, match="is no folder; name the one with the task's files"):
        settle(FinetuneConfig(**{**options, "data_dir": str(tmp_path / "nowhere")}))
    with pytest.raises(ConfigError, match=r"metric_for_best_model 'f2' is no figure of .* it has accuracy"):
        settle(FinetuneConfig(**options, metric_for_best_model="f2"))
    (tmp_path / "run" / "seed-2" / "model").mkdir(parents=True)
    (tmp_path / "run" / "seed-2" / "model" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"a run of `pmlm finetune`: give .*run/seed-2/model"):
        settle(FinetuneConfig(**{**options, "model": str(tmp_path / "run")}))
    with pytest.raises(ConfigError, match="is no checkpoint folder"):
        settle(FinetuneConfig(**{**options, "model": str(tmp_path)}))
    with pytest.raises(ConfigError, match="more than the 64 positions"):
        settle(FinetuneConfig(**{**options, "max_length": 65}))
    with pytest.raises(ConfigError, match="num_beams has no meaning for classification"):
        settle(FinetuneConfig(**{**options, "num_beams": 2}))
    with pytest.raises(ConfigError, match="doc_stride has no meaning for classification"):
        settle(FinetuneConfig(**{**options, "doc_stride": 2}))
    with pytest.raises(DataError, match="no file for split 'train' of task 'rte'"):
        settle(FinetuneConfig(**{**options, "task": "rte", "data_dir": str(tmp_path)}))
    with pytest.raises(DataError, match=r"train\.tsv: no columns 'sentence1', 'sentence2'"):
        settle(FinetuneConfig(**{**options, "task": "rte"}))
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((Path(model) / name).read_bytes())
    with pytest.raises(ConfigError, match="has no tokenizer beside it"):
        settle(FinetuneConfig(**{**options, "model": str(bare)}))


def test_the_recipe_is_the_default_and_saying_it_is_the_same_run(tmp_path: Path, model: str, reviews: str):
    options = options_for("classification", model, reviews, tmp_path, run_name=None, learning_rate=None)
    short = settle(FinetuneConfig(**options))[0]
    assert short.recipe.learning_rate == get_task("rte").recipe.learning_rate
    spelt_out = settle(FinetuneConfig(**{**options, "learning_rate": short.recipe.learning_rate, "num_workers": 2}))[0]
    assert short.run == spelt_out.run
    assert short.run != settle(FinetuneConfig(**{**options, "weight_decay": 0.5}))[0].run
    assert short.run != settle(FinetuneConfig(**{**options, "max_train_rows": 7}))[0].run


def test_a_subset_is_the_same_whatever_part_of_it_is_read(reviews: str):
    task = get_task("classification", data_dir=reviews)
    whole = survey(task, reviews, "train", None, Rejects(), strict=True)
    part = survey(task, reviews, "train", 20, Rejects(), strict=True)
    assert (whole.examples, whole.used, part.used) == (60, 60, 20)
    ids = [example.id for example in read_chosen(task, reviews, part)]
    assert len(set(ids)) == 20
    assert [int(i) for i in ids] == sorted(map(int, ids)) != list(range(20))
    pieces = [e.id for first in range(0, 20, 6) for e in read_chosen(task, reviews, part, first, min(first + 6, 20))]
    assert pieces == ids
    with pytest.raises(DataError, match="the files were changed"):
        list(read_chosen(task, reviews, replace(whole, examples=70, used=70)))


def test_features_come_back_as_they_were_written_over_several_parts(tmp_path: Path):
    draw = np.random.default_rng(0)
    rows = [
        {"input_ids": draw.integers(0, 9, size).tolist(), "label": int(size), "example": at // 2}
        for at, size in enumerate(draw.integers(0, 7, 40).tolist())
    ]
    drafts = Drafts(tmp_path / "cache" / "made")
    parts = [
        write_part(drafts.path / "part-0.arrow", [rows[:10], rows[10:20]], 0),
        write_part(drafts.path / "part-1.arrow", [], 10),
        write_part(drafts.path / "part-2.arrow", [[{**row, "example": row["example"] - 10} for row in rows[20:]]], 10),
    ]
    assert not (tmp_path / "cache" / "made").exists()
    features = Features(drafts.publish(parts))
    assert len(features) == 40
    assert features.lengths.tolist() == [len(row["input_ids"]) for row in rows]
    order = [39, 0, 20, 19, 5]
    for found, wanted in zip(features.rows(order), [rows[at] for at in order], strict=True):
        assert found["input_ids"].tolist() == wanted["input_ids"]
        assert (found["label"], found["example"]) == (wanted["label"], wanted["example"])
    (tmp_path / "cache" / "made" / "part-0.arrow").write_bytes(b"torn")
    with pytest.raises(DataError, match="remove that folder"):
        Features(tmp_path / "cache" / "made")


def test_the_cache_is_found_by_content_and_rebuilt_for_other_lengths(
    tmp_path: Path, model: str, reviews: str, monkeypatch: pytest.MonkeyPatch
):
    job = settle(FinetuneConfig(**options_for("classification", model, reviews, tmp_path)))[0]
    work = Work("classification", reviews, job.train.split, job.recipe, model, True, job.config.task_options())
    made = encode_split(work, tmp_path / "cache")
    stamp = (made / "manifest.json").stat().st_mtime_ns
    assert encode_split(replace(work, data_dir=reviews), tmp_path / "cache") == made
    assert (made / "manifest.json").stat().st_mtime_ns == stamp
    assert encode_split(replace(work, recipe=replace(job.recipe, max_length=9)), tmp_path / "cache") != made

    def fail(*_: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setattr(encode, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        encode_split(replace(work, recipe=replace(job.recipe, max_length=8)), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_ray_makes_the_same_features(
    tmp_path: Path, model: str, reviews: str, monkeypatch: pytest.MonkeyPatch, ray_session: None
):
    job = settle(FinetuneConfig(**options_for("classification", model, reviews, tmp_path)))[0]
    work = Work("classification", reviews, job.train.split, job.recipe, model, True, job.config.task_options())
    here = Features(encode_split(work, tmp_path / "here"))
    monkeypatch.setattr(encode, "_WORTH_RAY", 0)
    monkeypatch.setattr(encode, "_CHUNK", 16)
    folder = encode_split(work, tmp_path / "ray", num_workers=2)
    assert len(json.loads((folder / "manifest.json").read_text())["parts"]) == 4
    there = Features(folder)
    assert here.lengths.tolist() == there.lengths.tolist()
    for mine, theirs in zip(here.rows(range(60)), there.rows(range(60)), strict=True):
        assert mine["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert mine["label"] == theirs["label"]


def test_a_micro_batch_without_rows_weighs_nothing(tmp_path: Path, model: str, reviews: str):
    job = job_for(options_for("classification", model, reviews, tmp_path))
    batches = TrainingBatches(job, job_family(job))
    batch = batches.make(np.empty(0, np.int64), np.empty(0, np.int64))
    task = finetuning_task("classification")
    assert BLANK in batch
    assert task.count(batch) == 0
    net = build_model(job.task, job.recipe, job.source, from_scratch=False, seed=0, dropout=(0.0, 0.0))
    loss, figures = task.losses(net, batch)
    loss.backward()
    assert loss.item() == figures["accuracy"].item() == 0.0
    assert all(not p.grad.any() for p in net.parameters() if p.grad is not None)


def _worker(rank: int, world: int, job: Job, meeting: str) -> None:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    finetune(job, Team(rank, world))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_train_on_the_same_batches(tmp_path: Path, model: str, reviews: str):
    # 60 rows in batches of 8: the last batch of an epoch has four rows, so one worker runs short of rows.
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "learning_rate": 1e-3}
    alone = job_for(options_for("classification", model, reviews, tmp_path / "one", **quiet))
    finetune(alone, Team())
    both = job_for(options_for("classification", model, reviews, tmp_path / "two", num_workers=2, **quiet))
    with tempfile.TemporaryDirectory() as meeting:
        multiprocessing.set_forkserver_preload(["pipelines.finetune.loop"])
        torch.multiprocessing.start_processes(
            _worker, (2, both, f"file://{meeting}/store"), nprocs=2, start_method="forkserver"
        )
    curves = []
    for job in (alone, both):
        lines = [json.loads(line)["metrics"] for line in (job.run.path / "metrics.jsonl").read_text().splitlines()]
        curves.append([figures["train/loss"] for figures in lines if "train/loss" in figures])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    mine, theirs = read_scores(alone.run), read_scores(both.run)
    assert mine is not None
    assert theirs is not None
    assert theirs["scores"]["dev"]["accuracy"] == pytest.approx(mine["scores"]["dev"]["accuracy"], abs=4.0)
    predictions = [(job.run.path / "predictions" / "predictions.test.tsv").read_text() for job in (alone, both)]
    assert len(predictions[0].splitlines()) == len(predictions[1].splitlines()) == 21


def test_best_and_standing_still():
    history = [{"scores": {"f1": value}} for value in (1.0, 5.0, 5.0, 4.0)]
    assert best_epoch(history, "f1") == 1
    assert best_epoch([{"scores": {}}], "f1") is None
    assert stands_still(history, "f1", 2)
    assert not stands_still(history, "f1", 3)
    assert not stands_still(history, "f1", None)


def test_epochs_that_tie_in_the_metric_are_told_apart_by_the_other_figures():
    """As the early epochs of a generation do, all with a BLEU-4 of 0; the checkpoints are ranked by the same number."""
    scores = [{"bleu4": 0.0, "rougeL": 4.0}, {"bleu4": 0.0, "rougeL": 6.0}, {"bleu4": 0.0, "rougeL": 5.0}]
    history = [{"scores": each} for each in scores]
    assert best_epoch(history, "bleu4") == 1
    assert not stands_still(history, "bleu4", 2)
    assert stands_still(history, "bleu4", 1)
    better = [*history, {"scores": {"bleu4": 0.01, "rougeL": 0.0}}]
    assert best_epoch(better, "bleu4") == 3
    values = [worth(entry["scores"], "bleu4") for entry in better]
    assert max(values) == values[3]
    counts = {"f1": 1.0, "total": 9e9, "best_f1_thresh": 9e9}  # no scores: they decide nothing
    assert worth(counts, "f1") == 1.0
    assert worth({}, "f1") is None


def test_a_step_s_targets_are_counted_before_they_are_on_the_device(tmp_path: Path, model: str):
    settings = {"max_target_length": 6, "num_beams": 1}
    folder = write_pairs(tmp_path / "data", rows=11)  # the second batch is short: a micro-batch is blank
    job = job_for({**options_for("seq2seq", model, folder, tmp_path), **settings})
    batches, count = TrainingBatches(job, job_family(job)), finetuning_task("generation").count
    loader = batches.loader(Precision(torch.device("cpu"), "fp32"), 0, 1, 0, count)
    for step, micro_batches in loader:
        assert loader.measured == [sum(count(batch) for _, batch in micro_batches)]
        if step == 3:
            break


def test_a_split_that_need_not_be_there_is_no_warning(tmp_path: Path, model: str, capsys: Any):
    folder = Path(write_reviews(tmp_path / "data"))
    (folder / "test.tsv").unlink()
    options = options_for("classification", model, str(folder), tmp_path, strict=True)
    job, _ = settle(FinetuneConfig(**options))
    assert [part.split.name for part in job.final] == ["dev"]
    said = capsys.readouterr().out
    assert "split 'test' has no file and is left out" in said
    assert "warning" not in said
    for named in ("validation_file", "test_file"):
        with pytest.raises(DataError, match=r"looked for tset\.tsv"):
            settle(FinetuneConfig(**options, **{named: "tset.tsv"}))


def test_a_target_of_at_least_its_greatest_length_is_refused(tmp_path: Path, model: str):
    options = options_for("seq2seq", model, write_pairs(tmp_path / "data"), tmp_path)
    with pytest.raises(ConfigError, match=r"min_target_length 8 leaves no room .* max_target_length 8"):
        settle(FinetuneConfig(**options, min_target_length=8, max_target_length=8))


@pytest.mark.parametrize("task", ["classification", "seq2seq"])
def test_weights_that_are_cut_short_are_said_in_a_sentence(tmp_path: Path, model: str, reviews: str, task: str):
    damaged = Path(shutil.copytree(model, tmp_path / "model")) / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    source = open_source(str(damaged.parent))
    made = get_task(task, data_dir=reviews)
    with pytest.raises(CheckpointError, match=r"model .* cannot be loaded \(SafetensorError"):
        build_model(made, made.recipe, source, from_scratch=False, seed=0, dropout=(0.0, 0.0))


def test_weights_in_several_files_are_all_looked_at(tmp_path: Path, model: str):
    folder = Path(shutil.copytree(model, tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    PmlmForPreTraining.from_pretrained(model).save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    before = open_source(str(folder)).sha256
    shards[-1].write_bytes(shards[-1].read_bytes()[:-1] + b"?")
    assert open_source(str(folder)).sha256 != before
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[-1].name} of model\.safetensors\.index\.json is not there"):
        open_source(str(folder))


def test_seeds_are_summed_up_over_what_all_of_them_have():
    """A test file may have come later; METEOR may lack Java on one machine."""
    scores = [{"dev": {"bleu4": 1.0, "meteor": 2.0}, "test": {"bleu4": 3.0}}, {"dev": {"bleu4": 3.0}}]
    for order in (scores, scores[::-1]):
        found = summary([{"scores": each} for each in order])
        assert {split: list(figures) for split, figures in found.items()} == {"dev": ["bleu4"]}
        assert found["dev"]["bleu4"]["mean"] == 2.0
