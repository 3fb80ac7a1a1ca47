"""A worker in a folder that stands in for the run's: in the end the run's folder is as if the worker had been in it."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews
from test_finetune_parts import job_for

from pipelines.finetune import epochs
from pipelines.finetune.elsewhere import job_here, read_by
from pipelines.finetune.loop import finetune
from pipelines.finetune.rundir import SCORES
from pipelines.handover.files import address, kept
from pipelines.handover.outpost import Outpost, opened
from pipelines.handover.serving import end_keeper, start_keeper
from pipelines.leaving import Left, Request
from pipelines.pretrain.loop import train
from pipelines.pretrain.plan import WorkPlan, plan_at
from pipelines.run_folder import Events
from pipelines.team import Team
from pipelines.upload import of_workers
from pmlm_core import storage
from pmlm_core.errors import CheckpointError
from pmlm_core.stores import StoreError
from pmlm_core.training import checkpoint
from tests.pipelines.test_finetune_run import assert_same
from tests.pipelines.test_pretrain_loop import OPTIONS, Pulled
from tests.pipelines.training_without_ray import config_for, curve, plan_of, train_here


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory, blocks: str) -> Path:
    return train_here(config_for(blocks, tmp_path_factory.mktemp("peace"), **OPTIONS))


@pytest.fixture
def plan(tmp_path: Path, blocks: str, monkeypatch: pytest.MonkeyPatch) -> WorkPlan:
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PMLM_STORE_SECONDS", "1")
    return plan_of(config_for(blocks, tmp_path / "out", **OPTIONS))


@pytest.fixture
def keeper(ray_session: None, plan: WorkPlan) -> Iterator[str]:
    """One that leaves no mark in the folder, by which a worker of this machine would see that it is here."""
    name = start_keeper([str(plan.run.path)], [])
    yield name
    end_keeper(name)


def work(plan: WorkPlan, keeper: str, report: Any = lambda figures: None, told: Any = lambda: False) -> Outpost:
    with opened(plan.run, plan.attempt, True, keeper) as post:
        assert post.run.path != plan.run.path
        train(plan_at(plan, post.run), Team(report=report, told=told, flush=post.flush))
        post.deliver()
    assert not post.run.path.exists()
    return post


def weights(run: Path) -> str:
    return hashlib.sha256((run / "checkpoints" / "step-00000024" / "model.safetensors").read_bytes()).hexdigest()


def test_a_killed_worker_is_followed_by_one_elsewhere_and_nothing_tells_of_it(
    plan: WorkPlan, keeper: str, in_peace: Path
):
    def pull(figures: Any) -> None:
        if figures["step"] == 16:
            raise Pulled

    with pytest.raises(Pulled):
        work(plan, keeper, pull)
    assert [path.name for path in checkpoint.all_steps(plan.run.checkpoints)][-1] == "step-00000015"
    work(plan, keeper)
    assert curve(plan.run.path) == curve(in_peace)
    assert curve(plan.run.path, "eval/") == curve(in_peace, "eval/")
    assert weights(plan.run.path) == weights(in_peace)
    names = [path.name for path in checkpoint.all_steps(plan.run.checkpoints)]
    assert names == [path.name for path in checkpoint.all_steps(in_peace / "checkpoints")]
    told = [event["text"] for event in Events(plan.run).read()[0] if event["kind"] == "checkpoint"]
    assert told[-1] == str(plan.run.checkpoints / "step-00000024")
    assert not [path for path in plan.run.path.rglob(".*") if path.name != ".lock"]


def test_who_is_asked_to_leave_there_leaves_here(plan: WorkPlan, keeper: str):
    request = Request(plan.run.leaving_of(plan.attempt))
    request.prepare()
    with opened(plan.run, plan.attempt, True, keeper) as post:
        mine = Request(post.run.leaving_of(plan.attempt))
        mine.tell_begun()
        post.flush()
        assert request.has_begun()

        def told() -> bool:
            request.ask()
            while not mine.is_asked():
                pass
            return True

        with pytest.raises(Left):
            train(plan_at(plan, post.run), Team(told=told, flush=post.flush))
        mine.tell_left()
        post.flush()
    assert request.has_left()
    assert [path.name for path in checkpoint.all_steps(plan.run.checkpoints)] == ["step-00000001"]


def test_what_a_worker_said_last_is_told_there(plan: WorkPlan, keeper: str):
    with opened(plan.run, plan.attempt, False, keeper) as post:
        Events(post.run).add("warning", "my last words")
    assert [event["text"] for event in Events(plan.run).read()[0]] == ["my last words"]


def test_an_error_is_told_there_and_ends_who_comes_after(plan: WorkPlan, keeper: str):
    there = plan.run.failure_of(plan.attempt)
    with opened(plan.run, plan.attempt, True, keeper), opened(plan.run, plan.attempt, False, keeper) as post:
        post.run.failure_of(plan.attempt).write_text("the first")
        post.flush()
    with opened(plan.run, plan.attempt, True, keeper) as post:
        assert post.run.failure_of(plan.attempt).read_text() == "the first"
        post.run.failure_of(plan.attempt).write_text("another")
        post.flush()
    assert there.read_text() == "the first"


def test_a_worker_that_was_given_up_changes_nothing(plan: WorkPlan, keeper: str):
    with opened(plan.run, plan.attempt, True, keeper) as first, opened(plan.run, plan.attempt, True, keeper):
        with pytest.raises(CheckpointError, match="another worker was put in this one's place"):
            train(plan_at(plan, first.run), Team(flush=first.flush))
        with pytest.raises(StoreError, match="another worker was put in this one's place"):
            first.deliver()
        assert not first.counts()
    assert not checkpoint.all_steps(plan.run.checkpoints)
    assert not (plan.run.path / "metrics.jsonl").exists()


def test_workers_of_two_groups_on_one_machine_have_nothing_in_common(plan: WorkPlan, keeper: str):
    with (
        opened(plan.run, plan.attempt, True, keeper, group="first") as first,
        opened(plan.run, plan.attempt, True, keeper, group="second") as second,
        opened(plan.run, plan.attempt, False, keeper, group="second") as neighbour,
    ):
        (first.run.checkpoints / "step-00000020").mkdir()  # of one that was given up
        (second.run.checkpoints / "step-00000010").mkdir()
        assert [path.name for path in second.run.checkpoints.iterdir()] == ["step-00000010"]
        assert (neighbour.run.checkpoints / "step-00000010").exists()


def test_a_checkpoint_that_is_damaged_there_is_passed_over(plan: WorkPlan, keeper: str, in_peace: Path):
    def pull(figures: Any) -> None:
        if figures["step"] == 16:
            raise Pulled

    with pytest.raises(Pulled):
        work(plan, keeper, pull)
    (plan.run.checkpoints / "step-00000015" / "optimizer.safetensors").write_bytes(b"rotten")
    work(plan, keeper)
    assert curve(plan.run.path) == curve(in_peace)
    assert weights(plan.run.path) == weights(in_peace)
    assert all(checkpoint.damage(path) is None for path in checkpoint.all_steps(plan.run.checkpoints))


def test_a_checkpoint_is_seen_there_when_it_is_whole(
    plan: WorkPlan, keeper: str, in_peace: Path, monkeypatch: pytest.MonkeyPatch
):
    """However often the driver looks, no half of one is there for it to call damaged."""
    really, looked = storage.copy_file, []

    def copy(local: Any, uri: str) -> None:
        really(local, uri)
        looked.extend(checkpoint.damage(path) for path in checkpoint.all_steps(plan.run.checkpoints))

    monkeypatch.setattr(storage, "copy_file", copy)
    work(plan, keeper)
    assert len(looked) > 20
    assert set(looked) == {None}


def test_other_ranks_get_the_checkpoint_that_rank_0_names(plan: WorkPlan, keeper: str, in_peace: Path):
    work(plan, keeper)
    with opened(plan.run, plan.attempt, False, keeper) as post:
        folder = of_workers.present(post.run, "step-00000024")
        assert folder.parent == post.run.checkpoints
        assert checkpoint.damage(folder) is None
        with opened(
            plan.run, plan.attempt, False, keeper
        ) as neighbour:  # of the same machine: nothing is fetched again
            assert (neighbour.run.checkpoints / "step-00000024").samefile(folder)
    place = kept(address(keeper, "-", plan.run.path))
    assert place.ask("info", str(plan.run.path / "nothing")) is None


def left_in(run: Path) -> dict[str, bytes]:
    """Predictions and paired files."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for name in ("predictions", "paired")
        for path in (run / name).iterdir()
    }


def test_fine_tuning_there_leaves_here_what_it_would_have_left(
    tmp_path: Path, sample_tokenizer_dir: str, ray_session: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    model, data = make_checkpoint(tmp_path / "model", sample_tokenizer_dir), write_reviews(tmp_path / "data")
    in_peace = job_for(options_for("classification", model, data, tmp_path / "peace"))
    finetune(in_peace, Team())
    job = job_for(options_for("classification", model, data, tmp_path / "out"))
    name = start_keeper([str(job.run.path)], list(read_by(job)))
    evaluated, really = itertools.count(1), epochs.Chooser.scores

    def pull(self: epochs.Chooser, model: Any) -> dict[str, float]:
        if next(evaluated) == 4:
            raise Pulled
        return really(self, model)

    def work() -> None:
        elsewhere = job_here(job, name)
        assert elsewhere.config.data_dir.startswith("driver://")
        with opened(job.run, job.attempt, True, name, ending=(SCORES,)) as post:
            finetune(replace(elsewhere, run=post.run), Team(flush=post.flush))
            post.deliver()

    with monkeypatch.context() as patch:
        patch.setattr(epochs.Chooser, "scores", pull)
        with pytest.raises(Pulled):
            work()
        patch.setattr(epochs.Chooser, "scores", really)
        assert checkpoint.all_steps(job.run.checkpoints)
        assert not (job.run.path / SCORES).exists()
        work()
    end_keeper(name)
    assert_same(job.run.path, in_peace.run.path)
    files = [left_in(run) for run in (job.run.path, in_peace.run.path)]
    assert files[0] == files[1] != {}
    assert not job.run.checkpoints.exists()
