"""The journal: torn lines, full disks, cut tails, and two who write to it."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews
from hypothesis import given, settings
from hypothesis import strategies as st
from test_finetune_parts import job_for
from tracking_data import write_steps

from pipelines.finetune import conclude
from pipelines.finetune.loop import finetune
from pipelines.team import Team
from pipelines.tracking.journal import Entry, Journal, read
from pipelines.tracking.record import Record
from pmlm_core.training import checkpoint
from tests.pipelines.test_pretrain_loop import OPTIONS
from tests.pipelines.training_without_ray import config_for, train_here


def test_a_line_torn_by_a_kill_is_dropped_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    write_steps(journal, range(3))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"step": 3, "time": 1.0, "metr')
    again = Journal(tmp_path)
    assert [entry.step for entry in again.entries()] == [0, 1, 2]
    again.append(3, {"train/loss": 1.0})
    assert [entry.step for entry in again.entries()] == [0, 1, 2, 3]
    assert all(json.loads(line) for line in journal.path.read_text().splitlines())


@given(torn=st.binary(max_size=9000).filter(lambda raw: b"\n" not in raw))
@settings(max_examples=30, deadline=None)
def test_any_torn_tail_is_cut(tmp_path_factory: pytest.TempPathFactory, torn: bytes) -> None:
    folder = tmp_path_factory.mktemp("journal")
    (folder / "metrics.jsonl").write_bytes(torn)
    journal = Journal(folder)
    journal.append(1, {"a": 1.0}, at=2.0)
    assert list(journal.entries()) == [Entry(1, 2.0, {"a": 1.0})]


def test_damaged_lines_in_the_middle_are_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(1, {"a": 1.0})
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b"\x00" * 40 + b'\n{"step": 2}\n[1]\n"text"\n')
    journal.append(3, {"a": 3.0})
    assert [entry.step for entry in journal.entries()] == [1, 3]


def test_figures_that_are_not_finite_are_kept_in_valid_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(1, {"grad_norm": float("inf"), "train/loss": float("nan")})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads(journal.path.read_text(), parse_constant=refuse)
    (entry,) = journal.entries()
    assert entry.metrics["grad_norm"] == float("inf")
    assert entry.metrics["train/loss"] != entry.metrics["train/loss"]


@pytest.mark.parametrize("lost_its_handle", [False, True])
def test_a_worker_that_was_given_up_and_lives_on_writes_no_step_twice(tmp_path: Path, lost_its_handle: bool) -> None:
    told: list[str] = []
    old, new = Journal(tmp_path, say=told.append), Journal(tmp_path)
    write_steps(old, range(1, 6))
    new.truncate_after(3)
    if lost_its_handle:  # a network file system's answer to a file that another machine has replaced
        old.close()
    write_steps(old, range(6, 9))
    write_steps(new, range(4, 10))
    write_steps(old, range(9, 12))
    assert [entry.step for entry in new.entries()] == list(range(1, 10))
    assert len(told) == lost_its_handle
    assert all("another start of this run writes it now" in text for text in told)


@pytest.mark.parametrize("lost_its_handle", [False, True])
@pytest.mark.parametrize("before", [[], [10, 20]])
def test_a_worker_that_was_given_up_before_it_wrote_anything_writes_no_step_twice(
    tmp_path: Path, before: list[int], lost_its_handle: bool
) -> None:
    write_steps(Journal(tmp_path), before)
    told: list[str] = []
    old, new = Journal(tmp_path, say=told.append), Journal(tmp_path)
    for each in (old, new):
        each.truncate_after(20)
    if lost_its_handle:
        old.close()
    for step in (30, 40):
        write_steps(new, [step])
        write_steps(old, [step])
    assert [entry.step for entry in new.entries()] == [*before, 30, 40]
    assert bool(told) == lost_its_handle


def test_truncation_keeps_the_steps_of_the_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.truncate_after(5) == 0
    write_steps(journal, range(10))
    before = list(journal.entries())
    assert journal.truncate_after(5) == 4
    assert list(journal.entries()) == before[:6]
    write_steps(journal, range(6, 8))
    assert [entry.step for entry in journal.entries()] == list(range(8))


def test_a_full_disk_loses_figures_but_neither_training_nor_later_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    journal = Journal(tmp_path, say=said.append)
    journal.append(1, {"a": 1.0})
    really = os.write

    def half(handle: int, data: bytes) -> int:
        return really(handle, data[: len(data) // 2])

    def refuse(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for step, write in ((2, half), (3, refuse)):
        monkeypatch.setattr(os, "write", write)
        journal.append(step, {"a": 1.0})
        monkeypatch.setattr(os, "write", really)
    journal.append(4, {"a": 1.0})
    assert [entry.step for entry in journal.entries()] == [1, 4]
    assert len(journal.path.read_text().splitlines()) == 2
    assert len(said) == 1
    assert "No space left on device" in said[0]


class Disk:
    """What would be left of files after a lost power supply: how many bytes of each were forced to disk."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._forced: dict[int, int] = {}
        self._really = os.fsync
        patch.setattr(os, "fsync", self._force)

    def _force(self, handle: int) -> None:
        size = os.fstat(handle).st_size
        self._really(handle)
        self._forced[os.fstat(handle).st_ino] = size

    def forced(self, path: Path) -> int:
        return self._forced.get(path.stat().st_ino, 0)

    def lost(self, path: Path, step: int) -> list[int]:
        """Steps up to `step` in the journal that would be gone."""
        return [entry.step for entry, _ in read(path, self.forced(path)) if entry.step <= step]


def test_what_was_appended_is_forced_to_disk_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, journal = Disk(monkeypatch), Journal(tmp_path)
    journal.sync()  # nothing yet
    write_steps(journal, range(3))
    assert disk.lost(journal.path, 3) == [0, 1, 2]
    journal.sync()
    assert disk.lost(journal.path, 3) == []
    assert disk.forced(tmp_path)  # a new file is lost with its name


def test_a_disk_that_cannot_be_forced_is_told_of_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    journal = Journal(tmp_path, say=said.append)
    write_steps(journal, range(3))

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        journal.sync()
    write_steps(journal, range(3, 5))
    assert [entry.step for entry in journal.entries()] == [0, 1, 2, 3, 4]
    assert "Input/output error" in said[0]


def test_figures_are_on_disk_before_the_checkpoint_that_makes_them_unrepeatable(
    tmp_path: Path, blocks: str, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = make_checkpoint(tmp_path / "model", sample_tokenizer_dir), write_reviews(tmp_path / "data")
    job = job_for(options_for("classification", model, data, tmp_path / "finetune"))
    disk, lost = Disk(monkeypatch), dict[str, list[int]]()

    def looking(really: Callable[..., Any], of: Callable[..., tuple[Path, int]]) -> Callable[..., Any]:
        def work(*given: Any) -> Any:
            run, step = of(*given)
            lost[f"{run} {really.__name__} {step}"] = disk.lost(run / "metrics.jsonl", step)
            return really(*given)

        return work

    monkeypatch.setattr(
        checkpoint, "write", looking(checkpoint.write, lambda root, contents, _: (root.parent, contents.step))
    )
    monkeypatch.setattr(conclude, "_save", looking(conclude._save, lambda job, *_: (job.run.path, 10**9)))
    train_here(config_for(blocks, tmp_path / "pretrain", **OPTIONS))
    finetune(job, Team())
    assert len(lost) > 7
    assert not any(lost.values()), lost


def test_a_record_is_on_disk_before_it_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, really, lost = Disk(monkeypatch), os.replace, list[int]()

    def replace(source: Path, target: Path) -> None:
        lost.append(source.stat().st_size - disk.forced(source))
        really(source, target)

    monkeypatch.setattr(os, "replace", replace)
    Record("sqlite:///x.db", "e", "r").save(tmp_path)
    assert lost == [0]
