"""What `pmlm pretrain --dry_run` says: counts against the real model and against the paper, and its text."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.dry_run import ASSUMED, Blocks, describe, make_plan, read_blocks
from pipelines.pretrain.plan import slots_of
from pmlm_core.corpus.manifest import Manifest, ShardEntry
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import DataError

BASE = PretrainConfig("blocks", "out", preset="base", batch_size=7680, max_steps=500_000, num_workers=64, use_gpu=True)
TINY = PretrainConfig("blocks", "out", preset="tiny", batch_size=32, max_steps=300, num_workers=2)


def write_blocks(folder: Path) -> Blocks:
    entries = [ShardEntry(f"shards/{i}.arrow", 500, 500 * 128, 500 * 19, 1, "0" * 64) for i in range(2)]
    Manifest(
        tokenizer_fingerprint="t",
        vocab_size=4000,
        special_ids=SpecialIds(sos=0, pad=1, eos=2, unk=3, mask=4, pseudo=5),
        max_length=128,
        views=4,
        splits={"train": entries, "validation": []},
    ).save(str(folder))
    return Blocks(rows=1000, tokens=128_000, slots=19.0, vocab_size=4000, max_length=128, views=4)


def test_the_paper_s_run() -> None:
    """docs/method.md, 5: 7680 x 512 x 500k is 1.97e12 tokens; its 30.7k V100-hours mean an MFU of 11 %."""
    plan = make_plan(BASE, ASSUMED, 24, bf16=True)
    assert plan.tokens_seen == 7680 * 512 * 500_000
    assert plan.predictions == 7680 * 500_000 * 78 * 2
    assert plan.parameters == pytest.approx(110e6, rel=0.01)
    assert plan.flops == plan.flops_per_step * 500_000
    # 6 operations for each weight and token is the usual rule of thumb; the appended tokens are 2 * 78 more a row.
    rule = 6 * 85e6 * 7680 * (512 + 2 * 78) * 500_000
    assert plan.flops == pytest.approx(rule, rel=0.25)
    assert plan.hours(125e12, 0.11) == pytest.approx(30_700, rel=0.15)


def test_counts_follow_the_options() -> None:
    blocks = Blocks(rows=1000, tokens=128_000, slots=19.0, vocab_size=4000, max_length=128, views=4)
    plan = make_plan(TINY, blocks, 16, bf16=False)
    assert plan.epochs == pytest.approx(32 * 300 / 1000)
    assert plan.tokens_seen == 32 * 300 * 128
    one = make_plan(replace(TINY, objective="AE"), blocks, 16, bf16=False)
    assert one.predictions * 2 == plan.predictions
    assert one.flops < plan.flops
    twice = make_plan(replace(TINY, batch_size=64), blocks, 16, bf16=False)
    assert twice.flops == pytest.approx(2 * plan.flops)
    assert twice.memory.activations == plan.memory.activations
    assert make_plan(TINY, blocks, 16, bf16=True).memory.activations < plan.memory.activations
    assert make_plan(replace(TINY, rel_pos_bins=0), blocks, 16, bf16=False).parameters == plan.parameters - 2 * 32


def test_parameters_are_those_of_the_model_that_would_be_built() -> None:
    from pmlm_core.model import PmlmConfig, PmlmForPreTraining

    blocks = Blocks(rows=1, tokens=128, slots=19.0, vocab_size=4000, max_length=128, views=1)
    model = PmlmForPreTraining(PmlmConfig(vocab_size=4000, **TINY.size()))
    assert make_plan(TINY, blocks, 16, bf16=False).parameters == sum(p.numel() for p in model.parameters())


def test_blocks_are_read_from_their_manifest(tmp_path: Path) -> None:
    assert read_blocks(str(tmp_path)) is None
    assert read_blocks(str(tmp_path / "nowhere")) is None
    expected = write_blocks(tmp_path)
    assert read_blocks(str(tmp_path)) == expected
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError):
        read_blocks(str(tmp_path))


def test_the_text(tmp_path: Path) -> None:
    missing = describe(replace(BASE, data_dir=str(tmp_path / "later")), 24, bf16=True)
    assert "later does not exist yet (pmlm preprocess makes the blocks)" in missing
    assert "holds no finished blocks yet" in describe(replace(BASE, data_dir=str(tmp_path)), 24, bf16=True)
    assert "110 M parameters (12 layers x 768, 12 heads)" in missing
    assert "1.97 T tokens" in missing
    assert "at an assumed MFU of" in missing
    assert "time here" not in missing  # a GPU run: this machine's CPU says nothing

    write_blocks(tmp_path)
    text = describe(replace(TINY, data_dir=str(tmp_path)), 16, bf16=False)
    assert "1,000 rows of 128" in text
    assert "9.60 times over the data (more than the 4 views" in text
    assert "time here" in text
    assert "measured" in text
    assert "H100" in text
    assert " 0.0," not in text  # a small run's hours are shown in minutes, not rounded away


def test_a_run_from_a_checkpoint_has_its_architecture(tmp_path: Path) -> None:
    sizes = TINY.size()
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "rel_pos_bins": 32}))
    start = PretrainConfig("blocks", "out", init_checkpoint=str(tmp_path), batch_size=32, max_steps=300, num_workers=2)
    assert asdict(make_plan(start, ASSUMED, 16, bf16=False)) == asdict(make_plan(TINY, ASSUMED, 16, bf16=False))


def test_the_most_slots_are_those_the_blocks_were_masked_for(tmp_path: Path) -> None:
    write_blocks(tmp_path)
    usual = read_blocks(str(tmp_path))
    manifest = Manifest.load(str(tmp_path))
    replace(manifest, config={"mask_prob": 0.4, "max_block": 12}).save(str(tmp_path))
    found = read_blocks(str(tmp_path))
    assert found is not None
    assert usual is not None
    assert found.most_slots == slots_of(Manifest.load(str(tmp_path))) > usual.most_slots
    more, less = (make_plan(TINY, blocks, 16, bf16=False).memory.activations for blocks in (found, usual))
    assert more > less
