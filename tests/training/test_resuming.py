"""What a training that goes on keeps of how it was computed before."""

import json
from pathlib import Path

import pytest

from pmlm_core.training import checkpoint
from pmlm_core.training.resuming import COMPUTED_BY, computed_otherwise, micro_batch_before


def write_state(root: Path, step: int, text: str) -> None:
    folder = checkpoint.folder_of(root, step)
    folder.mkdir()
    (folder / checkpoint.STATE).write_text(text)


def test_micro_batches_are_those_of_the_newest_checkpoint_that_can_be_read(tmp_path: Path):
    assert micro_batch_before(tmp_path, 16, use_gpu=False) is None
    for step, rows in ((1, 4), (2, 8)):
        write_state(tmp_path, step, json.dumps({COMPUTED_BY: {"micro_batch_size": rows, "use_gpu": False}}))
    write_state(tmp_path, 3, "torn")
    assert micro_batch_before(tmp_path, 16, use_gpu=False) == 8
    assert micro_batch_before(tmp_path, 12, use_gpu=False) is None, "it does not divide the batch"
    assert micro_batch_before(tmp_path, 16, use_gpu=True) is None, "another kind of processor"
    write_state(tmp_path, 4, "{}")  # of before it was written down
    assert micro_batch_before(tmp_path, 16, use_gpu=False) is None


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("num_workers", "but figures will differ in the last digits"),
        ("threads_per_worker", "but figures will differ in the last digits"),
        *(
            (name, "with other dropout")
            for name in ("micro_batch_size", "use_gpu", "torch_compile", "attention", "layer")
        ),
    ],
)
def test_what_dropout_is_drawn_by_is_told_from_what_only_rounds_otherwise(name: str, how: str):
    before = {name: 1, "precision": "fp32"}
    assert computed_otherwise(before, before | {"torch": "3"}) is None
    told = computed_otherwise(before, before | {name: 2}) or ""
    assert how in told
    assert told.endswith(f"from an uninterrupted run: {name} was 1, is 2")


def test_a_checkpoint_of_before_there_were_kernels_for_a_layer_was_computed_by_torch():
    told = computed_otherwise({"attention": "triton"}, {"attention": "triton", "layer": "triton"}) or ""
    assert "layer was torch, is triton" in told
    assert computed_otherwise({"attention": "plain"}, {"attention": "plain", "layer": "torch"}) is None
    assert computed_otherwise({}, {"layer": "triton"}) is None
