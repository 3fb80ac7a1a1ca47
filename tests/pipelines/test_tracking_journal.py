"""The journal: torn lines, full disks, cut tails, and two who write to it."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking_data import write_steps

from pipelines.tracking.journal import Entry, Journal


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
