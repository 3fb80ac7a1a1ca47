"""A run that goes on with other options than it began with, which may differ: what stays the same, and what is said."""

import pytest

from pipelines.pretrain import run as stage
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.plan import WorkPlan
from pmlm_core.errors import CheckpointError
from tests.pipelines.test_pretrain_loop import OPTIONS, interrupted, said
from tests.pipelines.training_without_ray import config_for, curve, plan_of, train_here, train_in_processes


def test_dropout_stays_the_same_with_more_workers_though_no_micro_batch_size_is_given(tmp_path, blocks, monkeypatch):
    free = {**config_for(blocks, tmp_path / "whole", **OPTIONS), "micro_batch_size": None, "hidden_dropout_prob": 0.3}
    whole = curve(train_here(free))
    options = {**free, "output_dir": str(tmp_path / "out")}
    more = {**options, "num_workers": 2}
    assert plan_of(more).micro_batch_size == 4  # before there is a checkpoint, as suits the workers
    interrupted(options, 5)
    assert plan_of({**more, "micro_batch_size": 2}).micro_batch_size == 2
    fitted: list[WorkPlan] = []
    monkeypatch.setattr(stage, "_fit", fitted.append)
    with pytest.raises(CheckpointError):  # nothing was trained
        stage.run(PretrainConfig(**more))
    assert fitted[0].micro_batch_size == 8
    run = train_in_processes(more, workers=2)
    assert "num_workers was 1, is 2" in said(run)
    assert "other dropout" not in said(run)
    for step, figures in curve(run).items():
        assert figures["train/loss"] == pytest.approx(whole[step]["train/loss"], rel=1e-3), step


def test_held_out_losses_on_other_rows_are_said_not_to_compare(tmp_path, blocks):
    options = config_for(blocks, tmp_path, **OPTIONS)
    run = interrupted(options, 8)
    interrupted({**options, "eval_rows": 0}, 10)
    assert "do not compare" not in said(run)
    train_here({**options, "eval_rows": 12})
    assert "held-out losses are of 12 rows from here on, and of 20 before" in said(run)
    train_here({**options, "eval_rows": 12})
    assert said(run).count("do not compare") == 1
