"""`pmlm pretrain` over a real Ray with two workers: what it makes, says and refuses."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.preprocess.config import PreprocessConfig
from pipelines.preprocess.run import run as preprocess
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.run import dry_run, run
from pipelines.run_folder import Events, RunDir
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.errors import DataError, TrainingError
from pmlm_core.training import checkpoint
from tests.corpus.corpus_makers import jsonl, write
from tests.pipelines.training_without_ray import config_for, curve, train_in_processes

pytestmark = pytest.mark.timeout(900)  # Ray takes minutes to start where other work holds the processors

OPTIONS = {
    "max_steps": 12,
    "save_steps": 6,
    "eval_steps": 6,
    "eval_rows": 16,
    "logging_steps": 2,
    "num_workers": 2,
    "cpus_per_worker": 1,
}


def config(blocks: str, output: Path, **options) -> PretrainConfig:
    found = PretrainConfig(**config_for(blocks, output, **{**OPTIONS, **options}))
    found.validate()
    return found


def test_a_run_and_the_same_command_again(blocks, tmp_path, ray_session, capsys):
    import mlflow

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mine = config(blocks, tmp_path / "out", tracking_uri=store)
    run(mine)
    printed = capsys.readouterr().out
    final = (tmp_path / "out" / "final").resolve()
    assert final.name == "step-00000012"
    assert checkpoint.damage(final) is None
    assert "step 2/12  loss" in printed
    assert "held-out loss after 12 steps: AE" in printed
    assert f"pmlm fill --model {final}" in printed
    run_dir = final.parent.parent
    assert set(curve(run_dir)) == {2, 4, 6, 8, 10, 12}
    assert not (run_dir / "ray").exists()

    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("pmlm-pretrain")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    history = client.get_metric_history(tracked.info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in history} == {
        step: figures["train/loss"] for step, figures in curve(run_dir).items()
    }

    before = (run_dir / "metrics.jsonl").read_bytes()
    run(mine)
    assert "is finished: all 12 steps were done before" in capsys.readouterr().out
    assert (run_dir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_nan_ends_the_run_once_with_the_worker_s_own_sentence(blocks, tmp_path, ray_session, capsys):
    wild = config(blocks, tmp_path, learning_rate=1e18, warmup_steps=10, save_steps=1, run_name="wild")
    with pytest.raises(TrainingError, match=r"step \d+.*not finite|step \d+: the (loss|gradient)") as caught:
        run(wild)
    assert "learning_rate" in str(caught.value)
    assert "Traceback" not in capsys.readouterr().out
    events, _ = Events(RunDir(tmp_path / "wild")).read()
    assert len([event for event in events if event["kind"] == "resumed"]) == 1
    assert not list((tmp_path / "wild").glob("failure-*"))


@pytest.mark.slow
def test_damaged_shard_is_named_and_made_anew_and_the_run_goes_on(
    tmp_path, sample_texts, sample_tokenizer_dir, ray_session
):
    write(tmp_path / "text.jsonl", jsonl(sample_texts))
    blocks = str(tmp_path / "blocks")
    making = PreprocessConfig(
        inputs=[str(tmp_path / "text.jsonl")],
        tokenizer=sample_tokenizer_dir,
        output_dir=blocks,
        max_length=32,
        validation_fraction=0.1,
        piece_bytes=1 << 16,
    )
    preprocess(making)
    options = {"max_steps": 200, "save_steps": 20, "eval_steps": 200, "logging_steps": 1, "run_name": "run"}
    in_peace = train_in_processes(config_for(blocks, tmp_path / "peace", **{**OPTIONS, **options}), workers=2)
    shards = [Path(blocks, entry.path) for entry in Manifest.load(blocks).splits["train"]]
    assert len(shards) > 1
    whole = {shard: (shard.read_bytes(), shard.stat().st_mtime_ns) for shard in shards}
    mine, checkpoints = config(blocks, tmp_path / "out", **options), tmp_path / "out" / "run" / "checkpoints"

    over = threading.Event()

    def cut() -> None:
        while not checkpoint.all_steps(checkpoints):
            if over.wait(0.005):
                return
        os.truncate(shards[0], 1000)  # mapped: SIGBUS for a worker that reads it

    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut)
        try:
            with pytest.raises(DataError, match=rf"{shards[0].name}.*truncated"):
                run(mine)
        finally:
            over.set()
        cutting.result()
    preprocess(making)
    assert {shard: shard.read_bytes() for shard in shards} == {shard: content for shard, (content, _) in whole.items()}
    assert [shard for shard in shards if shard.stat().st_mtime_ns != whole[shard][1]] == shards[:1]
    run(mine)
    resumed = [
        event["step"] for event in Events(RunDir(tmp_path / "out" / "run")).read()[0] if event["kind"] == "resumed"
    ]
    assert resumed[-1] >= 20
    assert curve(tmp_path / "out" / "run") == curve(in_peace)


def test_dry_run_makes_nothing(blocks, tmp_path, capsys):
    dry_run(config(blocks, tmp_path / "out"))
    assert "parameters" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_missing_blocks_are_named_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(DataError, match="pmlm preprocess"):
        run(config(str(tmp_path / "nothing"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()
