"""A trial in a folder that stands in for its own: what the driver has of it at every moment, and who works on it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.handover import keeper as keeping
from pipelines.handover.files import address, kept
from pipelines.handover.serving import end_keeper, start_keeper
from pipelines.sweep import elsewhere
from pipelines.sweep.elsewhere import Place, place_of
from pipelines.tracking.journal import Journal
from pmlm_core import storage
from pmlm_core.errors import TrainingError
from pmlm_core.training import checkpoint


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PMLM_STORE_SECONDS", "1")
    monkeypatch.setattr(elsewhere, "_LOOK_S", 0.05)
    folder = tmp_path / "sweep" / "reviews" / "trials" / "abc-seed-1"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def keeper(ray_session: None, trial: Path) -> Iterator[str]:
    name = start_keeper([str(trial.parents[1])], [])
    yield name
    end_keeper(name)


def train_to(place: Place, epoch: int) -> None:
    """What an epoch leaves."""
    Journal(place.folder).append(epoch, {"eval/accuracy": 50.0})
    history = [{"epoch": each, "step": each, "scores": {"accuracy": 50.0 + each}} for each in range(1, epoch + 1)]
    contents = checkpoint.Contents(epoch, {"history": history}, {"x": torch.ones(1)}, -50.0 - epoch)
    checkpoint.write(place.run.checkpoints, contents, lambda folder: None)


def steps_in(folder: Path) -> list[int]:
    return [entry.step for entry in Journal(folder).entries()]


def test_epoch_by_epoch_it_is_there_figures_first_and_its_end_last(
    trial: Path, keeper: str, monkeypatch: pytest.MonkeyPatch
):
    really, order = storage.copy_file, []

    def copy(local: str | Path, uri: str) -> None:
        order.append(uri.rpartition("/")[2])
        really(local, uri)

    with place_of(trial, keeper) as place:
        assert place.folder != trial
        for epoch in (1, 2):
            train_to(place, epoch)
            place.hand_over()
            assert steps_in(trial) == list(range(1, epoch + 1))
            (newest,) = checkpoint.all_steps(trial / "checkpoints")[-1:]
            assert (checkpoint.step_of(newest.name), checkpoint.damage(newest)) == (epoch, None)
        monkeypatch.setattr(storage, "copy_file", copy)
        train_to(place, 3)
        place.hand_over()
        assert order.index("metrics.jsonl") < order.index("checkpoint.json")
        order.clear()
        (place.folder / "model").mkdir()
        for name in ("scores.json", "model/weights", "metrics.jsonl"):
            (place.folder / name).write_text("{}")
        place.hand_over()
        assert order[-1] == "scores.json"
        order.clear()
        place.hand_over()
        assert not order
    assert not (trial / "checkpoints").exists()
    assert (trial / "model" / "weights").exists()


def test_whoever_goes_on_has_what_was_there(trial: Path, keeper: str):
    with place_of(trial, keeper) as place:
        train_to(place, 1)
        train_to(place, 2)
        place.hand_over()
    with place_of(trial, keeper) as place:
        place.fetch_checkpoints("accuracy")
        assert steps_in(place.folder) == [1, 2]
        (newest,) = checkpoint.all_steps(place.run.checkpoints)
        assert checkpoint.step_of(newest.name) == 2
    for path in checkpoint.all_steps(trial / "checkpoints"):
        (path / checkpoint.OPTIMIZER).write_bytes(b"rotten")
    with place_of(trial, keeper) as place:
        place.fetch_checkpoints("accuracy")  # none is whole: it is trained anew
        assert not checkpoint.all_steps(place.run.checkpoints)
        train_to(place, 1)
        place.hand_over()
    assert [checkpoint.damage(path) for path in checkpoint.all_steps(trial / "checkpoints")] == [None]


def test_one_that_is_trained_again_keeps_its_checkpoints_until_its_new_end(trial: Path, keeper: str):
    (trial / "scores.json").write_text("the old end")
    with place_of(trial, keeper) as place:
        train_to(place, 1)
        place.hand_over()
        assert checkpoint.all_steps(trial / "checkpoints")
        (place.folder / "failure.json").write_text("{}")
        place.hand_over()
        assert checkpoint.all_steps(trial / "checkpoints"), "who tries a failed trial again goes on from there"
        (place.folder / "scores.json").write_text("the new end")
        place.hand_over()
    assert (trial / "scores.json").read_text() == "the new end"
    assert not (trial / "checkpoints").exists()


def test_the_second_at_a_trial_waits_and_finds_what_the_first_has_done(trial: Path, keeper: str):
    found: list[str] = []

    def second() -> None:
        with place_of(trial, keeper) as place:
            found.append((place.folder / "scores.json").read_text())

    with place_of(trial, keeper) as place:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        (place.folder / "scores.json").write_text("done")
        place.hand_over()
    thread.join(30.0)
    assert found == ["done"]


def test_one_that_was_followed_changes_nothing_any_more(trial: Path, keeper: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(elsewhere, "LEASE_S", 0.3)  # of how often it is heard of
    with place_of(trial, keeper) as place:
        other = kept(address(keeper, "other", trial))
        assert not other.hold(str(trial), at_once=False)
        assert other.hold(str(trial), at_once=True)  # as after a minute of silence
        other.let_go(str(trial))
        place.lost.wait(30)
        (place.folder / "scores.json").write_text("late")
        with pytest.raises(TrainingError, match="another process works on the trial"):
            place.hand_over()
    assert not (trial / "scores.json").exists()
    assert keeping.LEASE_S == 60.0


def test_strategies_whose_states_tune_keeps_need_a_folder_that_all_see(trial: Path, keeper: str):
    with (
        pytest.raises(TrainingError, match=r"hyperband and pbt keep states.*that all nodes share"),
        place_of(trial, keeper, keeps_state=True),
    ):
        pass
    (trial.parents[1] / f".{keeper}").touch()  # the mark by which a node sees that it is the driver's
    with place_of(trial, keeper, keeps_state=True) as place:
        assert place.folder == trial
