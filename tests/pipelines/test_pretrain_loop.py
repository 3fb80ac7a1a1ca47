"""The worker's loop, without Ray: exact resumption, other numbers of workers, damage, refusals."""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.pretrain.loop import _computed_by, _tell_start, train
from pipelines.pretrain.plan import WorkPlan
from pipelines.pretrain.setup import trainee
from pipelines.run_folder import Events, RunDir
from pipelines.team import Team
from pipelines.tracking.journal import Journal
from pmlm_core.errors import CheckpointError, ConfigError, TrainingError
from pmlm_core.training import checkpoint
from pmlm_core.training.step import Precision
from tests.pipelines.tiny_blocks import make_blocks
from tests.pipelines.training_without_ray import config_for, curve, plan_of, train_here, train_in_processes

OPTIONS = {
    "max_steps": 24,
    "save_steps": 5,
    "eval_steps": 8,
    "eval_rows": 20,
    "logging_steps": 3,
    "keep_checkpoints": 100,
    "run_name": "run",
    # In bf16, other sizes of micro-batches round differently enough to turn a near-tie in what is predicted.
    "precision": "fp32",
}


class Pulled(Exception):
    """The plug."""


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory, blocks) -> Path:
    return train_here(config_for(blocks, tmp_path_factory.mktemp("peace"), **OPTIONS))


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.folder_of(run / "checkpoints", step) / "model.safetensors")


def interrupted(options: dict, at: int) -> Path:
    """Train until the report of step `at`; steps after the last checkpoint are in the journal, as after a crash."""

    def report(figures) -> None:
        if figures["step"] == at:
            raise Pulled

    with pytest.raises(Pulled):
        train_here(options, report=report)
    return Path(options["output_dir"]) / options["run_name"]


def said(run: Path) -> str:
    return " | ".join(event["text"] for event in Events(RunDir(run)).read()[0])


def test_loss_goes_down(in_peace):
    losses = [figures["train/loss"] for figures in curve(in_peace).values()]
    assert losses[-1] < losses[0] - 0.3
    assert {"train/ae_loss", "train/par_loss", "grad_norm", "learning_rate"} <= curve(in_peace)[24].keys()
    assert set(curve(in_peace, "eval/")) == {8, 16, 24}


@pytest.mark.parametrize("at", [5, 8, 16, 20])
def test_resumed_run_is_bitwise_the_uninterrupted_one(at, tmp_path, blocks, in_peace):
    options = config_for(blocks, tmp_path, **OPTIONS)
    run = interrupted(options, at)
    assert len(checkpoint.all_steps(run / "checkpoints")) == at // 5
    train_here(options)
    assert curve(run) == curve(in_peace)
    assert curve(run, "eval/") == curve(in_peace, "eval/")
    here, there = weights(run, 24), weights(in_peace, 24)
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_checkpoint_loads_by_itself_and_holds_no_pickle(in_peace, blocks):
    from transformers import AutoModelForPreTraining, AutoTokenizer

    import pmlm_core.corpus.hf_tokenizer
    import pmlm_core.model.auto  # noqa: F401

    folder = checkpoint.folder_of(in_peace / "checkpoints", 24)
    model = AutoModelForPreTraining.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".model"}


def test_two_workers_see_the_same_rows_and_learn_the_same(tmp_path, blocks, in_peace):
    run = train_in_processes(config_for(blocks, tmp_path, **OPTIONS), workers=2)
    mine, theirs = curve(run), curve(in_peace)
    assert mine.keys() == theirs.keys()
    for step in mine:
        for name, value in mine[step].items():
            assert value == pytest.approx(theirs[step][name], rel=2e-3), (step, name)


@pytest.mark.slow
def test_three_workers_resume_bitwise(tmp_path, blocks):
    """With three, the order of summation depends on DDP's buckets, which it arranges anew after its first step."""
    options = config_for(blocks, tmp_path / "a", **OPTIONS, batch_size=12)
    whole = train_in_processes(options, workers=3)
    expected, final = curve(whole), weights(whole, 24)
    for folder in checkpoint.all_steps(whole / "checkpoints")[2:]:
        folder.rename(folder.with_name(f"away-{folder.name}"))
    train_in_processes(options, workers=3)
    assert curve(whole) == expected
    assert all(torch.equal(tensor, final[name]) for name, tensor in weights(whole, 24).items())


def test_one_worker_goes_on_where_two_stopped_and_says_what_that_means(tmp_path, blocks):
    options = config_for(blocks, tmp_path, **OPTIONS)
    train_in_processes(options, workers=2)
    checkpoint_root = tmp_path / "run" / "checkpoints"
    for folder in checkpoint.all_steps(checkpoint_root)[2:]:
        folder.rename(folder.with_name(f"away-{folder.name}"))
    train_here(options)
    assert "num_workers was 2, is 1" in said(tmp_path / "run")
    assert checkpoint.folder_of(checkpoint_root, 24).is_dir()


def test_what_computes_otherwise_than_before_is_said(tmp_path, blocks, monkeypatch):
    plan, precision = plan_of(config_for(blocks, tmp_path, **OPTIONS)), Precision(torch.device("cpu"), "fp32")
    trained = trainee(plan, precision, None)
    told = _computed_by(plan, Team(), trained, precision)
    assert told["attention"] == "plain"
    compiled = replace(plan, config=replace(plan.config, torch_compile=True))

    def tell(plan: WorkPlan, before: dict[str, Any]) -> None:
        now = replace(trained, step=5, state={"computed_by": before})
        _tell_start(plan, Team(), now, precision, 0, Events(plan.run))

    for before in (told, {name: told[name] for name in told if name not in ("torch_compile", "attention")}):
        tell(plan, before)
    assert "warning" not in {event["kind"] for event in Events(plan.run).read()[0]}
    tell(compiled, told)
    assert said(plan.run.path).endswith(
        "with other dropout, so figures will differ from an uninterrupted run: torch_compile was False, is True"
    )
    monkeypatch.setenv("PMLM_ATTENTION", "sdpa")  # as where a kernel fails its trial
    tell(plan, told)
    assert said(plan.run.path).endswith(
        "with other dropout, so figures will differ from an uninterrupted run: attention was plain, is sdpa"
    )


def test_damaged_newest_checkpoint_is_said_and_the_one_before_it_taken(tmp_path, blocks, in_peace):
    options = config_for(blocks, tmp_path, **OPTIONS)
    run = interrupted(options, 16)
    newest = checkpoint.folder_of(run / "checkpoints", 15)
    newest.joinpath("model.safetensors").write_bytes(newest.joinpath("model.safetensors").read_bytes()[:-100])
    train_here(options)
    assert "step-00000015 is damaged (model.safetensors has" in said(run)
    assert "resumed from the checkpoint of step 10" in said(run)
    assert curve(run) == curve(in_peace)


def test_nan_names_step_and_remedy_and_leaves_a_good_checkpoint(tmp_path, blocks):
    wild = {**OPTIONS, "learning_rate": 1e18, "warmup_steps": 20, "save_steps": 1}
    with pytest.raises(TrainingError, match=r"step \d+.*learning_rate"):
        train_here(config_for(blocks, tmp_path, **wild))
    newest = checkpoint.newest_valid(tmp_path / "run" / "checkpoints", print)
    assert newest is not None
    assert all(torch.isfinite(tensor).all() for tensor in load_file(newest / "model.safetensors").values())


def test_every_objective_trains_and_logs_its_own_losses(tmp_path, blocks):
    for objective in ("AE", "PAR", "AR", "AE+AR"):
        few = {**OPTIONS, "max_steps": 2, "objective": objective, "eval_steps": 2, "logging_steps": 1}
        run = train_here(config_for(blocks, tmp_path / objective, **few))
        logged = set(curve(run)[2])
        assert ("train/ae_loss" in logged) == ("AE" in objective)
        assert ("train/par_loss" in logged) == ("AR" in objective)
        assert set(curve(run, "eval/")) == {2}


def test_blocks_of_another_tokenizer_are_refused(tmp_path, blocks, sample_texts):
    from pmlm_core.corpus.tokenizer import train as train_tokenizer

    options = config_for(blocks, tmp_path / "out", **{**OPTIONS, "max_steps": 2})
    train_here(options)
    train_tokenizer(sample_texts, vocab_size=500, seed=0).save(str(tmp_path / "tokenizer"))
    other = make_blocks(tmp_path / "other", sample_texts, str(tmp_path / "tokenizer"))
    with pytest.raises(CheckpointError, match=r"was trained with tokenizer .* run_name"):
        train_here({**options, "data_dir": other})
    # Also where only the checkpoint knows: the run's record was lost.
    record = tmp_path / "out" / "run" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"data": plan_of_data(other)}))
    with pytest.raises(CheckpointError, match=r"checkpoint .* was trained with tokenizer"):
        train_here({**options, "data_dir": other})


def plan_of_data(blocks: str) -> dict:
    from pipelines.pretrain.plan import identity
    from pmlm_core.corpus.manifest import Manifest

    return identity(Manifest.load(blocks)).__dict__


def test_same_tokenizer_but_other_blocks_are_refused(tmp_path, blocks, sample_texts, sample_tokenizer_dir):
    options = config_for(blocks, tmp_path / "out", **{**OPTIONS, "max_steps": 2})
    train_here(options)
    other = make_blocks(tmp_path / "other", sample_texts, sample_tokenizer_dir, stream_key=6)
    with pytest.raises(CheckpointError, match="same tokenizer, other text or options"):
        train_here({**options, "data_dir": other})


def test_changed_options_under_one_name_are_named(tmp_path, blocks):
    options = config_for(blocks, tmp_path, **{**OPTIONS, "max_steps": 2})
    plan_of(options)
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.001 and is 0\.5; seed was 0 and is 3"):
        plan_of({**options, "learning_rate": 0.5, "seed": 3})
    plan_of({**options, "num_workers": 2, "save_steps": 1})


def test_the_stores_password_is_not_written_into_the_run(tmp_path, blocks):
    options = config_for(blocks, tmp_path, **OPTIONS) | {"tracking_uri": "postgresql://me:hush@db/mlflow"}
    record = plan_of(options).run.record.read_text()
    assert "postgresql://***@db/mlflow" in record
    assert "hush" not in record


def test_an_unfinished_folder_of_someone_else_is_not_taken_over(tmp_path, blocks):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match=r"holds no run\.json"):
        plan_of(config_for(blocks, tmp_path, **OPTIONS))


def test_going_on_from_the_weights_of_another_run(tmp_path, blocks, in_peace):
    source = checkpoint.folder_of(in_peace / "checkpoints", 24)
    options = config_for(blocks, tmp_path, **{**OPTIONS, "max_steps": 2, "logging_steps": 1})
    for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"):
        del options[name]
    run = train_here({**options, "init_checkpoint": str(source), "objective": "PAR"})
    assert curve(run)[1]["train/par_loss"] < curve(in_peace)[3]["train/par_loss"] - 0.1


def test_checkpoints_by_the_clock(tmp_path, blocks):
    options = config_for(blocks, tmp_path, **{**OPTIONS, "save_steps": 1000, "save_minutes": 1e-12, "max_steps": 4})
    train(plan_of(options), Team())
    assert len(checkpoint.all_steps(tmp_path / "run" / "checkpoints")) == 4


def test_only_the_newest_and_the_best_are_kept(tmp_path, blocks):
    options = config_for(blocks, tmp_path, **{**OPTIONS, "keep_checkpoints": 1, "eval_steps": 5})
    train_here(options)
    left = checkpoint.all_steps(tmp_path / "run" / "checkpoints")
    best = checkpoint.best(tmp_path / "run" / "checkpoints")
    assert set(left) == {checkpoint.folder_of(tmp_path / "run" / "checkpoints", 24), best}


def test_a_clock_that_jumps_changes_nothing(tmp_path, blocks, in_peace, monkeypatch):
    now, jumps = time.time, itertools.cycle((0, 7 * 86400, -7 * 86400))
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    run = train_here(config_for(blocks, tmp_path, **OPTIONS, save_minutes=60))
    monkeypatch.undo()
    times = [entry.time for entry in Journal(run).entries()]
    assert times != sorted(times)
    assert curve(run) == curve(in_peace)
    assert [path.name for path in checkpoint.all_steps(run / "checkpoints")] == [
        path.name for path in checkpoint.all_steps(in_peace / "checkpoints")
    ]
