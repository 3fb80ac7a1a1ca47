"""Checkpoints: whole or not at all; damage to the newest is found, said, and the one before it taken."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlm_core.errors import CheckpointError
from pmlm_core.training import checkpoint
from pmlm_core.training.checkpoint import Contents


def write(root: Path, step: int, score: float | None = None, text: str = "weights") -> Path:
    def write_model(folder: Path) -> None:
        (folder / "model.safetensors").write_text(f"{text} {step}")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "model").write_bytes(bytes(1000))

    contents = Contents(step, {"note": "état"}, {"exp_avg.w": torch.full((3,), float(step))}, score)
    return checkpoint.write(root, contents, write_model)


def test_what_was_written_is_read(tmp_path):
    folder = write(tmp_path, 128, score=3.5)
    assert folder.name == "step-00000128"
    assert checkpoint.damage(folder) is None
    assert checkpoint.read_state(folder) == {"step": 128, "note": "état"}
    assert torch.equal(checkpoint.read_optimizer(folder)["exp_avg.w"], torch.full((3,), 128.0))
    assert checkpoint.read_manifest(folder)["score"] == 3.5
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000128"]


def test_whoever_may_read_files_here_may_read_the_weights(tmp_path):
    folder = write(tmp_path, 1)
    assert (folder / "optimizer.safetensors").stat().st_mode == (folder / "training_state.json").stat().st_mode


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 1
    path.write_bytes(raw)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["model.safetensors", "optimizer.safetensors", "training_state.json", "tokenizer/model"]),
       at=st.integers(0, 2**16), how=st.sampled_from(["flip", "cut", "remove", "empty", "grow"]))  # fmt: skip
def test_any_damage_to_any_file_is_found(tmp_path_factory, name, at, how):
    folder = write(tmp_path_factory.mktemp("root"), 7)
    path = folder / name
    match how:
        case "flip":
            flip(path, at)
        case "cut":
            path.write_bytes(path.read_bytes()[: at % path.stat().st_size])
        case "remove":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "grow":
            path.write_bytes(path.read_bytes() + b"x")
    assert name in (checkpoint.damage(folder) or "")


def no_manifest(folder: Path) -> None:
    (folder / checkpoint.MANIFEST).unlink()


def half_manifest(folder: Path) -> None:
    path = folder / checkpoint.MANIFEST
    path.write_bytes(path.read_bytes()[:40])


def other_version(folder: Path) -> None:
    path = folder / checkpoint.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def not_a_manifest(folder: Path) -> None:
    (folder / checkpoint.MANIFEST).write_text("[]")


def all_gone(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = [
    no_manifest,
    half_manifest,
    not_a_manifest,
    all_gone,
    lambda f: flip(f / "model.safetensors", 3),
]


@pytest.mark.parametrize("spoil", DAMAGE)
def test_the_newest_whole_one_is_taken_and_the_damaged_one_named(tmp_path, spoil: Callable[[Path], None]):
    for step in (10, 20, 100_000_000):
        write(tmp_path, step)
    spoil(checkpoint.folder_of(tmp_path, 100_000_000))
    said: list[str] = []
    assert checkpoint.newest_valid(tmp_path, said.append) == tmp_path / "step-00000020"
    assert len(said) == 1
    assert "step-100000000 is damaged" in said[0]
    assert (tmp_path / "damaged-step-100000000").is_dir()
    assert checkpoint.newest_valid(tmp_path, said.append) == tmp_path / "step-00000020"
    assert len(said) == 1


def test_nothing_whole_is_nothing(tmp_path):
    said: list[str] = []
    assert checkpoint.newest_valid(tmp_path / "missing", said.append) is None
    (tmp_path / ".writing-step-00000001-5").mkdir()
    assert checkpoint.newest_valid(tmp_path, said.append) is None
    assert said == []


def test_if_there_were_checkpoints_and_none_is_whole_nothing_starts_over_silently(tmp_path):
    said: list[str] = []
    for step in (1, 2):
        no_manifest(write(tmp_path, step))
    for _ in range(2):  # the second command meets them already set aside
        with pytest.raises(CheckpointError, match=r"no checkpoint of this run is whole.*remove them to start over"):
            checkpoint.newest_valid(tmp_path, said.append)
    assert len(said) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_another_version_s_checkpoint_is_left_alone(tmp_path):
    for step in (10, 20):
        write(tmp_path, step)
    other_version(checkpoint.folder_of(tmp_path, 20))
    with pytest.raises(CheckpointError, match="format version 99, this pmlm reads 1: go on with pmlm"):
        checkpoint.newest_valid(tmp_path, print)
    assert [path.name for path in checkpoint.all_steps(tmp_path)] == ["step-00000010", "step-00000020"]


@pytest.mark.parametrize("name", ["model.safetensors", checkpoint.MANIFEST])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_cannot_be_read_now_is_not_damage(tmp_path, name, number, monkeypatch):
    """Another machine's file system is away: no test can bring that about for real."""
    for step in (10, 20):
        write(tmp_path, step)
    really = Path.open

    def refuse(path: Path, *args, **kwargs):
        if path == checkpoint.folder_of(tmp_path, 20) / name:
            raise OSError(number, os.strerror(number))
        return really(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: {os.strerror(number)}"):
        checkpoint.newest_valid(tmp_path, print)
    assert [path.name for path in checkpoint.all_steps(tmp_path)] == ["step-00000010", "step-00000020"]


def test_a_checkpoint_taken_away_for_one_that_never_came_is_put_back(tmp_path):
    """Killed between the two renames of writing the same step again."""
    folder = write(tmp_path, 10)
    folder.rename(tmp_path / ".replaced-step-00000010-77")
    (tmp_path / ".pruned-step-00000005-77").mkdir()
    (tmp_path / ".writing-step-00000010-77").mkdir()
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    assert checkpoint.damage(folder) is None


def test_an_interrupted_write_is_invisible_and_swept(tmp_path):
    write(tmp_path, 10)

    def dies(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path, Contents(20, {}, {}), dies)
    assert checkpoint.all_steps(tmp_path) == [tmp_path / "step-00000010"]
    assert len(list(tmp_path.iterdir())) == 2
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    def full(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=r"No space left on device.*; those before it are untouched"):
        checkpoint.write(tmp_path, Contents(20, {}, {}), full)
    assert list(tmp_path.iterdir()) == []


def test_the_same_step_again_replaces(tmp_path):
    write(tmp_path, 10, text="first")
    folder = write(tmp_path, 10, text="second")
    assert (folder / "model.safetensors").read_text() == "second 10"
    assert checkpoint.damage(folder) is None
    assert len(list(tmp_path.iterdir())) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=1, max_size=6), st.integers(1, 4))
def test_pruning_keeps_the_newest_and_the_best(tmp_path_factory, scores, keep):
    root = tmp_path_factory.mktemp("root")
    for step, score in enumerate(scores):
        write(root, step, score)
        checkpoint.prune(root, keep)
    left = [int(path.name.removeprefix("step-")) for path in checkpoint.all_steps(root)]
    assert left[-keep:] == list(range(len(scores)))[-keep:]
    scored = [score for score in scores if score is not None]
    if scored:
        best = checkpoint.best(root)
        assert best is not None
        assert checkpoint.read_manifest(best)["score"] == min(scored)
    assert len(left) <= keep + 1


def test_a_score_that_json_cannot_hold_is_refused_before_anything_is_published(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, 3, score=float("nan"))
    assert list(tmp_path.iterdir()) == []
