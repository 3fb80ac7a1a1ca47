"""Options of `pmlm pretrain`: contradictions are refused in a sentence; what decides the result names the run."""

import json
from pathlib import Path

import pytest

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.plan import WorkPlan
from pipelines.pretrain.rundir import DataIdentity, open_run
from pipelines.pretrain.tell import idle_workers, never_together
from pipelines.run_folder import RunDir
from pmlm_core.errors import ConfigError


def config(**options) -> PretrainConfig:
    return PretrainConfig(**{"data_dir": "blocks", "output_dir": "out", "preset": "tiny", **options})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"preset": "gigantic"}, "tiny, mini, small, medium, base, large"),
        ({"preset": None}, "no model size: give preset"),
        ({"preset": None, "hidden_size": 64}, "num_attention_heads"),
        ({"init_checkpoint": "folder"}, "not both"),
        ({"preset": None, "init_checkpoint": "folder", "hidden_size": 64}, "brings its own architecture"),
        ({"preset": None, "init_checkpoint": "folder", "rel_pos_bins": 8}, "leave out rel_pos_bins"),
        ({"preset": None, "init_checkpoint": "folder", "max_rel_pos": 64}, "leave out max_rel_pos"),
        ({"preset": None, "init_checkpoint": "folder", "initializer_range": 0.1}, "leave out initializer_range"),
        ({"rel_pos_bins": 0, "rel_pos_lr_scale": 30.0}, "leave out one of them"),
        ({"preset": "bse"}, r"preset 'bse' is not known; did you mean 'base'\? presets are tiny"),
        ({"num_attention_heads": 3}, "hidden_size 128 is not divisible by num_attention_heads 3"),
        ({"batch_size": 0}, "batch_size must be above 0, not 0"),
        ({"batch_size": 10, "num_workers": 4}, "num_workers may be 1, 2 or 5"),
        ({"batch_size": 8, "num_workers": 2, "micro_batch_size": 3}, "micro_batch_size may be 1, 2 or 4"),
        ({"num_workers": 2, "min_workers": 3}, "min_workers 3 is more than num_workers 2"),
        ({"min_workers": 0}, "min_workers must be above 0"),
        ({"cuda_graphs": True}, "needs a GPU and this run is on the CPU; leave cuda_graphs out, or give use_gpu true"),
        ({"cuda_graphs": True, "use_gpu": True, "num_workers": 2}, "goes with num_workers 1 and no gradient_checkp"),
        ({"cuda_graphs": True, "use_gpu": True, "gradient_checkpointing": True}, "leave it out"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"max_grad_norm": 0.0}, "leave it out to switch it off"),
        ({"hidden_dropout_prob": 1.0}, "from 0 to below 1"),
        ({"adam_beta2": 1.0}, "adam_beta2"),
        ({"warmup_steps": 5, "warmup_ratio": 0.1}, "warmup_steps or warmup_ratio, not both"),
        ({"warmup_steps": 50, "max_steps": 10}, "warmup_steps 50 is more than max_steps 10"),
        ({"run_name": "a/b"}, "plain folder name"),
        ({"run_name": ".."}, "plain folder name"),
        ({"run_name": ""}, "plain folder name"),
        ({"run_name": "final"}, "run_name 'final' is the name of the link in output_dir .* choose another"),
        ({"tracking_uri": "none", "register_model": "m"}, "register_model m is for MLflow, which tracking_uri none"),
        ({"output_dir": "s3://bucket/runs", "upload_dir": "s3://bucket/more"}, "in a store already"),
        ({"output_dir": "s3:///runs"}, "names no bucket"),
        ({"output_dir": "hdfs://place/runs"}, "not supported"),
        ({"max_failures": -2}, "max_failures"),
        ({"rel_pos_bins": 3}, "rel_pos_bins 3 with max_rel_pos 128"),
        ({"rel_pos_bins": 32, "max_rel_pos": 8}, "max_rel_pos above a quarter"),
        ({"eval_rows": -1}, "eval_rows must be 0 or more"),
    ],
)
def test_refusals_say_what_and_the_way_out(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config(**options).validate()


def test_good_ones_pass():
    config().validate()
    config(preset=None, num_hidden_layers=1, hidden_size=32, num_attention_heads=2).validate()
    config(preset=None, init_checkpoint="folder").validate()


def test_checkpoints_that_fall_between_evaluations_are_said():
    assert never_together(config(eval_steps=1000, save_steps=500)) is None
    assert never_together(config(eval_steps=500, save_steps=1000)) is None
    assert never_together(config(eval_steps=300, save_steps=500, eval_rows=0)) is None
    assert "let one divide the other" in (never_together(config(eval_steps=300, save_steps=500)) or "")


def test_workers_that_a_kept_micro_batch_leaves_idle_are_said():
    def plan(num_workers: int) -> WorkPlan:
        given = config(batch_size=256, num_workers=num_workers)
        return WorkPlan(given, RunDir(Path("out")), DataIdentity("a", "b", 10, 32), "", 32, 1, 4)

    assert idle_workers(plan(8)) is None
    assert "a batch is 8 micro-batches of 32 rows, as before" in (said := idle_workers(plan(16)) or "")
    assert "16 workers could take 16 in the same time. micro_batch_size 16 keeps all busy, with other dropout" in said


def test_where_a_run_happens_does_not_rename_it():
    assert config().name_for("blocks") == config(num_workers=4, save_steps=7, tracking_uri="none").name_for("blocks")
    elastic = config(num_workers=4, min_workers=2, resize_minutes=1.0, parallel="fsdp", gradient_checkpointing=True)
    assert config().name_for("blocks") == elastic.name_for("blocks")
    assert config().name_for("blocks") != config().name_for("other blocks")


@pytest.mark.parametrize("changed", [{"learning_rate": 2e-4}, {"seed": 1}, {"objective": "AE"}, {"hidden_size": 256}])
def test_what_a_run_computes_renames_it(changed):
    assert config().name_for("blocks") != config(**changed).name_for("blocks")


def test_options_added_later_leave_older_runs_what_they_were(tmp_path):
    data, options = DataIdentity("a", "b", 10, 32), {"output_dir": str(tmp_path), "run_name": "run"}
    younger = {"initializer_range": 0.02, "rel_pos_lr_scale": 1.0}
    assert not younger.keys() & config().deciding().keys()
    assert config(rel_pos_lr_scale=30.0).name_for("blocks") != config().name_for("blocks")
    run, _ = open_run(config(**options), data)
    # Records as they were before such an option, and while its default was still written down.
    record = json.loads(run.record.read_text())
    for deciding in (record["deciding"], record["deciding"] | younger):
        run.record.write_text(json.dumps(record | {"deciding": deciding}))
        assert open_run(config(**options), data) == (run, True)
        with pytest.raises(ConfigError, match=r"rel_pos_lr_scale was 1\.0 and is 30\.0"):
            open_run(config(**options, rel_pos_lr_scale=30.0), data)


def test_a_record_that_cannot_be_read_for_a_moment_does_not_end_the_run(tmp_path):
    data, options = DataIdentity("a", "b", 10, 32), {"output_dir": str(tmp_path), "run_name": "run"}
    run, _ = open_run(config(**options), data)
    whole = run.record.rename(tmp_path / "whole")
    run.record.mkdir()  # as on a disk that fails for a moment
    with pytest.raises(ConfigError, match=r"run\.json cannot be read: .* give the same command again") as refused:
        open_run(config(**options), data)
    assert "run_name" not in str(refused.value)
    run.record.rmdir()
    whole.rename(run.record)
    assert open_run(config(**options), data) == (run, True)


def test_two_ways_to_say_the_same_are_the_same_run():
    spelt_out = config(
        preset=None, num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=512, warmup_steps=10
    )
    short = config(warmup_ratio=0.0001)
    assert short.deciding() == spelt_out.deciding()


def test_a_width_of_ones_own_brings_its_feed_forward_layer():
    assert config(hidden_size=256).size()["intermediate_size"] == 1024
    assert config(hidden_size=256, intermediate_size=300).size()["intermediate_size"] == 300


@pytest.mark.parametrize(
    ("options", "compiles", "records"),
    [
        ({}, False, False),
        ({"torch_compile": True}, True, False),
        ({"use_gpu": True}, True, True),
        ({"use_gpu": True, "torch_compile": False, "cuda_graphs": False}, False, False),
        ({"use_gpu": True, "num_workers": 2}, True, False),
        ({"use_gpu": True, "gradient_checkpointing": True}, True, False),
        # Not a run's, but what `pmlm plan` asks of a recipe for one GPU on more of them.
        ({"use_gpu": True, "cuda_graphs": True, "num_workers": 8}, True, False),
    ],
)
def test_parts_are_compiled_and_passes_recorded_by_themselves_where_they_can_be(options, compiles, records):
    assert config(**options).compiles() is compiles
    assert config(**options).records() is records
