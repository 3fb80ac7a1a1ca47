"""Checkpoints written in the background: the weights of the moment, and failures said without stopping training."""

import shutil
import threading
from pathlib import Path

import pytest
import torch

from pmlm_core.errors import CheckpointError, TrainingError
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.pretraining import PmlmForPreTraining
from pmlm_core.training import checkpoint
from pmlm_core.training.checkpoint import Contents
from pmlm_core.training.snapshot import CheckpointWriter, copy_of
from pmlm_core.training.window import Window


@pytest.fixture
def model() -> PmlmForPreTraining:
    torch.manual_seed(0)
    return PmlmForPreTraining(
        PmlmConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )


class Heard:
    def __init__(self, root: Path) -> None:
        self.complaints: list[str] = []
        self.published: list[int] = []
        self.writer = CheckpointWriter(
            root,
            {"vocab.txt": b"words"},
            keep=2,
            say=self.complaints.append,
            published=lambda step, folder: self.published.append(step),
        )


def test_the_weights_of_the_moment_are_written_though_training_goes_on(tmp_path, model):
    heard = Heard(tmp_path)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    heard.writer.save(model, Contents(5, {}, {}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    heard.writer.close()
    folder = checkpoint.folder_of(tmp_path, 5)
    assert checkpoint.damage(folder) is None
    assert (folder / "vocab.txt").read_bytes() == b"words"
    loaded = PmlmForPreTraining.from_pretrained(folder).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert (heard.published, heard.complaints) == ([5], [])


def test_figures_that_go_on_growing_are_written_as_they_were(tmp_path, model, monkeypatch):
    """Training adds to its sums and its history while a large model takes seconds to write."""
    written, save = threading.Event(), model.save_pretrained

    def slowly(*args, **kwargs):
        assert written.wait(10)
        save(*args, **kwargs)

    monkeypatch.setattr(model, "save_pretrained", slowly)
    heard, window, history = Heard(tmp_path), Window(), [{"epoch": 1}]
    window.add({"loss": 3.0}, 2)
    heard.writer.save(model, Contents(5, {"window": window.to_json(), "history": history}, {}))
    window.add({"loss": 4.0}, 2)
    history.append({"epoch": 2})
    history[0]["epoch"] = 7
    written.set()
    heard.writer.close()
    state = checkpoint.read_state(checkpoint.folder_of(tmp_path, 5))
    assert state["window"] == {"sums": {"loss": 3.0}, "count": 2, "steps": 1}
    assert state["history"] == [{"epoch": 1}]


def test_tied_weights_are_copied_once(model):
    copies = copy_of(model)
    unique = {tensor.data_ptr() for tensor in copies.values()}
    assert len(unique) == len({id(tensor) for tensor in model.state_dict(keep_vars=True).values()})


def test_a_failed_checkpoint_is_said_and_the_next_one_succeeds(tmp_path, model):
    root = tmp_path / "checkpoints"
    root.write_text("a file where the folder should be")
    heard = Heard(root)
    heard.writer.save(model, Contents(1, {}, {}))
    heard.writer.wait()
    assert len(heard.complaints) == 1
    assert "could not be written" in heard.complaints[0]
    root.unlink()
    heard.writer.save(model, Contents(2, {}, {}))
    heard.writer.close()
    assert heard.published == [2]


def test_a_failed_last_checkpoint_is_an_error(tmp_path, model):
    root = tmp_path / "checkpoints"
    root.write_text("a file where the folder should be")
    heard = Heard(root)
    heard.writer.save(model, Contents(1, {}, {}))
    with pytest.raises(CheckpointError, match="could not be written"):
        heard.writer.close()


def test_weights_that_are_not_finite_are_never_published(tmp_path, model):
    heard = Heard(tmp_path)
    heard.writer.save(model, Contents(1, {}, {}))
    with torch.no_grad():
        next(model.parameters())[0] = torch.inf
    with pytest.raises(TrainingError, match=r"after step 1 the weights .* are not finite"):
        heard.writer.save(model, Contents(2, {}, {}))
    assert checkpoint.newest_valid(tmp_path, print) == checkpoint.folder_of(tmp_path, 1)
    shutil.rmtree(tmp_path)


def test_a_checkpoint_is_whole_though_old_ones_cannot_be_removed(tmp_path, model, monkeypatch):
    heard = Heard(tmp_path)

    def refuse(root: Path, keep: int) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(checkpoint, "prune", refuse)
    heard.writer.save(model, Contents(1, {}, {}))
    heard.writer.close()
    assert heard.published == [1]
    assert len(heard.complaints) == 1
    assert "old checkpoints" in heard.complaints[0]
