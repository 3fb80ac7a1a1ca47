"""Training on a file system that is really full for a while: checkpoints are missing, steps are not."""

import contextlib
import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.run_folder import Events, RunDir
from pmlm_core.errors import CheckpointError
from pmlm_core.training import checkpoint
from tests.pipelines.test_pretrain_loop import OPTIONS
from tests.pipelines.training_without_ray import config_for, curve, train_here


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory, blocks: str) -> Path:
    return train_here(config_for(blocks, tmp_path_factory.mktemp("peace"), **OPTIONS))


def fill(place: Path, after_step: int) -> None:
    """Leave no byte free, once the checkpoint of a step is written, which happens in the background."""
    deadline = time.monotonic() + 60
    while not checkpoint.folder_of(place / "run" / "checkpoints", after_step).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with contextlib.suppress(OSError), (place / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def weights(run: Path) -> str:
    return hashlib.sha256(
        (checkpoint.folder_of(run / "checkpoints", 24) / "model.safetensors").read_bytes()
    ).hexdigest()


def said(run: Path) -> str:
    return " | ".join(event["text"] for event in Events(RunDir(run)).read()[0])


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_but_no_step(disk: Path, blocks: str, in_peace: Path):
    after: dict[str, Any] = {8: lambda: fill(disk, 5), 20: (disk / "ballast").unlink}
    run = train_here(
        config_for(blocks, disk, **OPTIONS),
        report=lambda figures: after.pop(figures["step"], lambda: None)(),
    )
    assert not after
    assert "No space left on device" in said(run)
    assert weights(run) == weights(in_peace)
    kept = [path.name for path in checkpoint.all_steps(run / "checkpoints")]
    assert "step-00000005" in kept
    assert "step-00000015" not in kept
    assert all(checkpoint.damage(run / "checkpoints" / name) is None for name in kept)
    assert curve(run).items() <= curve(in_peace).items()  # lines of the journal may be lost, and it says so


def test_a_disk_full_to_the_end_is_said_and_the_same_command_goes_on_when_there_is_room(
    disk: Path, blocks: str, in_peace: Path
):
    options = config_for(blocks, disk, **OPTIONS)
    with pytest.raises(CheckpointError, match=r"No space left on device.*; those before it are untouched"):
        train_here(options, report=lambda figures: fill(disk, 5) if figures["step"] == 8 else None)
    (disk / "ballast").unlink()
    run = train_here(options)
    assert "resumed from the checkpoint of step" in said(run)
    assert curve(run) == curve(in_peace)
    assert weights(run) == weights(in_peace)
