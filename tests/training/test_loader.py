"""The loader: the same micro-batches wherever it starts and however many workers share them; errors come in time."""

import time

import numpy as np
import pytest
import torch

from pmlm_core.corpus.order import batch_rows
from pmlm_core.errors import DataError
from pmlm_core.training.loader import Loader, Share

N_ROWS, BATCH, SIZE = 37, 12, 2


def make(rows: np.ndarray, views: np.ndarray) -> dict[str, torch.Tensor]:
    return {"rows": torch.from_numpy(rows.copy()), "views": torch.from_numpy(views.copy())}


def loader(rank: int = 0, world: int = 1, first: int = 0, last: int = 9, make=make) -> Loader:
    share = Share(rank, world, BATCH, SIZE)
    order = lambda step: batch_rows(N_ROWS, BATCH, 3, step, 2)  # noqa: E731
    return Loader(order, make, share, first_step=first, max_steps=last, device=torch.device("cpu"), ahead=2)


def seen(*loaders: Loader) -> dict[int, dict[int, tuple[list[int], list[int]]]]:
    found: dict[int, dict[int, tuple[list[int], list[int]]]] = {}
    for one in loaders:
        for step, micro_batches in one:
            for index, batch in micro_batches:
                assert index not in found.setdefault(step, {})
                found[step][index] = (batch["rows"].tolist(), batch["views"].tolist())
    return found


def test_starting_later_changes_nothing():
    whole = seen(loader())
    assert seen(loader(first=5)) == {step: whole[step] for step in range(5, 9)}


@pytest.mark.parametrize("world", [2, 3, 6])
def test_workers_share_what_one_would_take(world):
    assert seen(*(loader(rank, world) for rank in range(world))) == seen(loader())


def test_each_epoch_takes_every_row_once():
    rows = [
        row for _, batches in seen(loader(last=37)).items() for index in sorted(batches) for row in batches[index][0]
    ]
    assert len(rows) == 12 * 37
    for epoch in range(12):
        assert sorted(rows[epoch * 37 : (epoch + 1) * 37]) == list(range(37))


def test_an_error_comes_at_its_step_and_ends_the_thread():
    def fails(rows: np.ndarray, views: np.ndarray) -> dict[str, torch.Tensor]:
        if fails.calls == 3 * BATCH // SIZE:
            raise DataError("shard gone")
        fails.calls += 1
        return make(rows, views)

    fails.calls = 0
    one = loader(make=fails)
    steps = []
    with pytest.raises(DataError, match="shard gone"):
        steps.extend(step for step, _ in one)
    assert steps == [0, 1, 2]
    one._thread.join(timeout=5)
    assert not one._thread.is_alive()


def test_what_is_measured_is_that_of_the_step_yielded():
    """The background thread is steps ahead by then."""
    one = loader(1, 3)
    one._measure = lambda batch: (int(batch["rows"].sum()), len(batch["rows"]))
    for _, micro_batches in one:
        time.sleep(0.01)
        assert one.measured == [sum(int(batch["rows"].sum()) for _, batch in micro_batches), BATCH // 3]


def test_copying_to_the_device_is_waiting(monkeypatch):
    def slowly(self: Loader, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        time.sleep(0.01)
        return batch

    monkeypatch.setattr(Loader, "_to_device", slowly)
    one = loader(last=3)
    waited = [one.waited for _ in one]  # the first time also for the order of rows to be compiled
    assert waited[2] - waited[0] >= 2 * BATCH // SIZE * 0.01


@pytest.mark.parametrize("world", [2, 4, 5])
def test_any_number_of_workers_share_the_same_rows_in_equally_many_micro_batches(world):
    expected, found = seen(loader()), seen(*(loader(rank, world) for rank in range(world)))
    for step, whole in expected.items():
        assert len(found[step]) == -(-len(whole) // world) * world
        assert {index: rows for index, rows in found[step].items() if rows[0]} == whole


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_pinned_ahead_and_arrive_whole():
    one = loader()
    one._device = torch.device("cuda", torch.cuda.current_device())
    expected, pinned, to_device = seen(loader()), [], one._to_device

    def watched(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pinned.extend(tensor.is_pinned() for tensor in batch.values())
        return to_device(batch)

    one._to_device = watched
    assert seen(one) == expected
    assert pinned
    assert all(pinned)


def test_leaving_early_ends_the_thread():
    one = loader(last=1000)
    for step, _ in one:
        if step == 2:
            break
    one._thread.join(timeout=5)
    assert not one._thread.is_alive()


def test_rows_are_told_ahead_of_their_step_and_each_once():
    told: list[list[int]] = []
    prepared: list[int] = []

    def noted(rows: np.ndarray, views: np.ndarray) -> dict[str, torch.Tensor]:
        if rows[0] == told[len(prepared) // 2][0]:  # the first of two micro-batches
            assert len(told) == (min(len(prepared) // 2 + 3, 9) if prepared else 1)
        prepared.append(len(rows))
        return make(rows, views)

    one = loader(1, 3, make=noted)
    one._coming, one._told_ahead = lambda rows: told.append(rows.tolist()), 3
    taken = [np.concatenate([b["rows"].numpy() for _, b in batches]).tolist() for _, batches in one]
    assert told == taken
