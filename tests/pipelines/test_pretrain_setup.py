"""Held-out rows: AE and PAR are asked the same question, and workers share it out."""

from pathlib import Path

import torch
from tiny_blocks import make_blocks
from training_without_ray import config_for, plan_of

from pipelines.pretrain.setup import HeldOut, training_loader
from pmlm_core.corpus.blocks import BlockSet
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
    assert sorted(shared) == sorted(alone)


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
