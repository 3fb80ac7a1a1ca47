"""Held-out rows: AE and PAR are asked the same question, and workers share it out."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_blocks import make_blocks
from training_without_ray import config_for, plan_of, train_here

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.plan import _absolute
from pipelines.pretrain.run import run as start
from pipelines.pretrain.setup import HeldOut, trainee, training_loader
from pipelines.train_group import Group, given_up
from pmlm_core.corpus.blocks import BlockSet
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.corpus.tokenizer import CONFIG_FILE, train
from pmlm_core.errors import CheckpointError, DataError
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.training import checkpoint
from pmlm_core.training.step import Precision

CPU = Precision(torch.device("cpu"), "fp32")


def test_every_predicted_position_shows_a_mask_and_nothing_else_is_touched(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    plan = plan_of(config_for(blocks, tmp_path / "out", eval_rows=10))
    held_out = HeldOut(plan, CPU, 0, 1)
    mask = held_out._blocks.manifest.special_ids.mask
    seen = 0
    for batch in held_out:
        used = batch["labels"] != -100
        shown = batch["input_ids"].gather(1, batch["pseudo_position_ids"])
        assert (shown[used] == mask).all()
        assert (batch["input_ids"] == mask).sum() == used.sum()
        seen += len(used)
    assert seen == held_out.rows == min(10, len(held_out._blocks))


def test_workers_share_the_rows(tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    plan = plan_of(config_for(blocks, tmp_path / "out", eval_rows=10, num_workers=2))
    alone = [row for batch in HeldOut(plan, CPU, 0, 1) for row in batch["labels"].tolist()]
    shared = [row for rank in (0, 1) for batch in HeldOut(plan, CPU, rank, 2) for row in batch["labels"].tolist()]
    blanks = [row for row in shared if set(row) == {IGNORED}]
    assert len(blanks) == 1  # five micro-batches of two workers
    assert sorted(row for row in shared if row not in blanks) == sorted(alone)


def test_rows_are_drawn_from_everywhere_and_always_the_same(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts, sample_tokenizer_dir, max_length=16)
    chosen = HeldOut(plan_of(config_for(blocks, tmp_path / "a", eval_rows=10)), CPU, 0, 1)._chosen
    total = len(BlockSet.open(blocks, split="validation"))
    assert total > 40
    assert len(set(chosen.tolist())) == 10
    assert chosen.max() >= total // 2
    again = HeldOut(plan_of(config_for(blocks, tmp_path / "b", eval_rows=10, seed=9)), CPU, 0, 1)._chosen
    assert (again == chosen).all()


def test_ae_cannot_copy_in_held_out_rows_but_could_in_training_rows(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts, sample_tokenizer_dir)
    plan = plan_of(config_for(blocks, tmp_path / "out", eval_rows=1000))

    def copied(batches: list[dict[str, torch.Tensor]]) -> int:
        return sum(int((b["input_ids"].gather(1, b["pseudo_position_ids"]) == b["labels"]).sum()) for b in batches)

    assert copied(list(HeldOut(plan, CPU, 0, 1))) == 0
    assert copied([batch for _, batch in training_loader(plan, CPU, 0, 1, 0).prepare(0)]) > 0


def test_full_batches_have_no_mask_and_are_counted_right(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    plan = plan_of(config_for(blocks, tmp_path / "out", max_steps=40))
    lengths = np.diff(BlockSet.open(blocks).rows(np.arange(len(BlockSet.open(blocks))), 0).offsets)
    loader, kinds = training_loader(plan, CPU, 0, 1, 0), set()
    for step, micro_batches in loader:
        rows, _ = loader._rows_of_step(step)
        assert loader.measured[1] == lengths[rows].sum()
        assert loader.measured[0] == sum(int((batch["labels"] != -100).sum()) for _, batch in micro_batches)
        for index, batch in micro_batches:
            full = bool((lengths[rows[index * 2 : index * 2 + 2]] == plan.data.max_length).all())
            assert ("attention_mask" not in batch) == full
            kinds.add(full)
    assert kinds == {True, False}


def start_from(folder: Path, blocks: str, output: Path) -> dict[str, Any]:
    options = config_for(blocks, output, init_checkpoint=str(folder), max_steps=2)
    for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"):
        del options[name]
    return options


def test_a_damaged_start_is_refused_in_a_sentence(tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    run = train_here(config_for(blocks, tmp_path / "out", max_steps=1, warmup_steps=0, eval_rows=0))
    folder = checkpoint.folder_of(run / "checkpoints", 1)
    plan = plan_of(start_from(folder, blocks, tmp_path / "next"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"is damaged: model\.safetensors has"):
        trainee(plan, CPU, None)
    (folder / checkpoint.MANIFEST).unlink()  # a folder of someone else's, with no hashes
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        trainee(plan_of(start_from(folder, blocks, tmp_path / "other")), CPU, None)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint folder: it has no config\.json"):
        start(PretrainConfig(**start_from(folder, blocks, tmp_path / "third")))
    assert not (tmp_path / "third").exists()


def test_blocks_replaced_under_a_run_are_refused(tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    plan = plan_of(config_for(blocks, tmp_path / "out", eval_rows=10))
    shutil.rmtree(blocks)
    make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir, stream_key=6)  # masked otherwise
    for use in (
        lambda: training_loader(plan, CPU, 0, 1, 0),
        lambda: HeldOut(plan, CPU, 0, 1),
        lambda: trainee(plan, CPU, None),
    ):
        with pytest.raises(CheckpointError, match=r"were replaced while the run went on.* into another folder"):
            use()


def test_checkpoints_get_the_tokenizer_of_the_blocks_and_nothing_that_lies_beside_it(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    usual = {path.name for path in Path(blocks, "tokenizer").iterdir()}
    for stray in ("tokenizer_config.json~", "#vocab.txt#", "vocab.txt:Zone.Identifier"):
        Path(blocks, "tokenizer", stray).write_text("an editor's")
    run = train_here(config_for(blocks, tmp_path / "out", max_steps=1, warmup_steps=0, eval_rows=0))
    folder = checkpoint.folder_of(run / "checkpoints", 1)
    assert checkpoint.damage(folder) is None
    assert usual < {path.name for path in folder.iterdir()}
    assert not {path.name for path in folder.iterdir()} & {"tokenizer_config.json~", "#vocab.txt#"}


@pytest.mark.parametrize("what", ["none", "another", "damaged"])
def test_blocks_without_their_tokenizer_are_refused_before_anything_starts(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str, what: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    beside = Path(blocks, "tokenizer")
    if what == "damaged":
        for path in beside.iterdir():
            path.write_bytes(path.read_bytes()[:100])
    else:
        shutil.rmtree(beside)
    if what == "another":
        train(sample_texts, vocab_size=500, seed=1).save(str(beside))
    sentence = "hold.* their ids mean other tokens" if what == "another" else "lack the tokenizer that belongs to them"
    with pytest.raises(DataError, match=sentence):
        start(PretrainConfig(**config_for(blocks, tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_blocks_that_more_input_replaced_are_still_there_and_the_refusal_says_how(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    config = config_for(blocks, tmp_path / "out", run_name="first")
    plan = plan_of(config)
    assert plan.run.path.is_dir()
    Manifest.load(blocks).keep(blocks)
    shutil.copytree(blocks, tmp_path / "before")
    shutil.rmtree(blocks)
    make_blocks(tmp_path / "blocks", sample_texts[:60], sample_tokenizer_dir)
    shutil.copy(next((tmp_path / "before").glob("manifest-*")), blocks)
    with pytest.raises(CheckpointError, match=r"still there: copy .*manifest-\w{12}\.json over .*manifest\.json"):
        start(PretrainConfig(**config))


def test_a_start_with_another_tokenizer_is_refused_although_its_sizes_fit(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    run = train_here(config_for(blocks, tmp_path / "out", max_steps=1, warmup_steps=0, eval_rows=0))
    folder = checkpoint.folder_of(run / "checkpoints", 1)
    for name in (checkpoint.MANIFEST, checkpoint.STATE):  # weights alone, as someone might pass them on
        (folder / name).unlink()
    plan = plan_of(start_from(folder, blocks, tmp_path / "next"))
    assert trainee(plan, CPU, None).step == 0
    settings = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(settings | {"pmlm_fingerprint": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"has tokenizer 000000000000, but the blocks .* other words"):
        trainee(plan, CPU, None)


def test_workers_in_other_folders_find_what_the_command_named(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "config.json").write_text('{"model_type": "pmlm"}')
    plan = plan_of(start_from(Path("start"), "blocks", tmp_path / "out"))
    assert (plan.config.data_dir, plan.config.init_checkpoint) == (blocks, str(tmp_path / "start"))
    assert _absolute("s3://bucket/blocks") == "s3://bucket/blocks"


def test_what_workers_meet_is_said_with_place_and_way_out(
    tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str
):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    plan = plan_of(config_for(blocks, tmp_path / "out", max_failures=2))
    group = Group(plan.run, "test", 1, 1, False, max_failures=2)
    assert "training failed 3 times, the last time with: KeyError" in str(given_up(group, KeyError("x")))


def test_initial_weights_have_the_spread_asked_for(tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str):
    blocks = make_blocks(tmp_path / "blocks", sample_texts[:40], sample_tokenizer_dir)
    plan = plan_of(config_for(blocks, tmp_path / "out", initializer_range=0.1))
    weight = trainee(plan, CPU, None).model.pmlm.embeddings.word.weight
    assert weight.std().item() == pytest.approx(0.1, rel=0.05)
