"""What the driver follows, when the disk is full or its terminal is gone."""

import errno
import os
from pathlib import Path

import pytest

from pipelines import follow
from pipelines.pretrain.progress import Progress
from pipelines.run_folder import Events, RunDir


def test_an_event_that_does_not_fit_on_the_disk_is_said_and_lost(tmp_path: Path, monkeypatch, capfd):
    events, really = Events(RunDir(tmp_path)), os.write

    def half(handle: int, data: bytes) -> int:
        return really(handle, data[: len(data) // 2])

    def refuse(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    events.add("warning", "first")
    for text, write in (("half", half), ("none", refuse)):
        monkeypatch.setattr(os, "write", write)
        events.add("warning", text)
        monkeypatch.setattr(os, "write", really)
    events.add("warning", "last")
    assert [event["text"] for event in events.read()[0]] == ["first", "last"]
    assert capfd.readouterr().err.count("cannot be written") == 1


def test_what_cannot_be_shown_stops_nothing(tmp_path: Path, monkeypatch):
    def closed(text: str) -> None:
        raise BrokenPipeError("the terminal is gone")

    events, shipped = Events(RunDir(tmp_path)), []
    followed = Progress(RunDir(tmp_path), 10, shipped.append)
    monkeypatch.setattr(follow, "_POLL_S", 0.01)
    monkeypatch.setattr(follow, "say", closed)
    monkeypatch.setattr(follow, "warn", closed)
    followed.start()
    events.add("checkpoint", "folder", step=3)
    events.add("checkpoint", "folder", step=5)
    for _ in range(200):
        if len(shipped) == 2:
            break
        followed._stop.wait(0.01)
    assert followed._thread.is_alive()
    events.add("checkpoint", "folder", step=10)
    followed.stop()
    assert shipped == [3, 5, 10]


@pytest.mark.parametrize("names", [[".run.json-77"], [".lock"], []])
def test_a_start_that_was_killed_before_its_record_is_swept(tmp_path: Path, names):
    from pipelines.pretrain.config import PretrainConfig
    from pipelines.pretrain.rundir import DataIdentity, open_run

    (tmp_path / "run").mkdir()
    for name in names:
        (tmp_path / "run" / name).write_text("{")
    open_run(PretrainConfig("blocks", str(tmp_path), run_name="run", preset="tiny"), DataIdentity("a", "b", 10, 32))
    assert {path.name for path in (tmp_path / "run").iterdir()} - {".lock"} == {"run.json"}
