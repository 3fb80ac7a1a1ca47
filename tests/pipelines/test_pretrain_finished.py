"""`pmlm pretrain` on a run whose last checkpoint is written: what a kill left undone in MLflow is done, and once."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.lock import locked
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.run import dry_run, run
from pmlm_core.errors import ConfigError
from tests.pipelines.tiny_blocks import make_blocks
from tests.pipelines.training_without_ray import config_for, train_here

OPTIONS = {"max_steps": 2, "eval_rows": 0, "logging_steps": 1, "run_name": "run"}


def test_of_two_that_start_at_once_one_writes_the_record(tmp_path: Path, sample_texts, sample_tokenizer_dir):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    options = PretrainConfig(**config_for(blocks, tmp_path / "out", **OPTIONS))
    (tmp_path / "out" / "run").mkdir(parents=True)
    with locked(tmp_path / "out" / "run", "pmlm pretrain"), pytest.raises(ConfigError, match="in use by"):
        run(options)
    assert [path.name for path in (tmp_path / "out" / "run").iterdir()] == [".lock"]


def test_a_run_killed_after_its_last_checkpoint_is_finished(tmp_path: Path, sample_texts, sample_tokenizer_dir, capsys):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = config_for(blocks, tmp_path / "out", **OPTIONS, tracking_uri=store, register_model="tiny-model")
    path = train_here(options)  # a worker's part; the driver died before it told MLflow anything
    with locked(path, "pmlm pretrain"), pytest.raises(ConfigError, match="in use by"):
        run(PretrainConfig(**options))
    for _ in range(2):
        run(PretrainConfig(**options))
    assert "finished: all 2 steps were done before" in capsys.readouterr().out
    dry_run(PretrainConfig(**options))
    told = "run run is finished, by its newest checkpoint, unread: all 2 steps were done before; nothing is to train\n"
    assert capsys.readouterr().out == told
    client = MlflowClient(store, store)
    experiment = client.get_experiment_by_name("pmlm-pretrain")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(tracked.info.run_id, "train/loss")] == [1, 2]
    assert len(client.search_model_versions("name='tiny-model'")) == 1


def test_final_is_the_checkpoint_of_the_command_given_last(
    tmp_path: Path, sample_texts, sample_tokenizer_dir, capsys, monkeypatch
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    link = tmp_path / "out" / "final"
    for name in ("one", "other", "one", "one"):
        options = config_for(blocks, tmp_path / "out", **OPTIONS | {"run_name": name}, tracking_uri="none")
        train_here(options)
        run(PretrainConfig(**options))
        assert link.resolve().parts[-3] == name
        told = f"{link} leads to this run now; it led to" in capsys.readouterr().out
    assert not told, "of what was so before, nothing is said"
    monkeypatch.setattr(Path, "symlink_to", lambda *_: os.link(tmp_path, tmp_path / "x"))  # a disk without links
    run(PretrainConfig(**config_for(blocks, tmp_path / "out", **OPTIONS | {"run_name": "other"})))
    assert link.resolve().parts[-3] == "one"
    assert "leads to this run now" not in capsys.readouterr().out
