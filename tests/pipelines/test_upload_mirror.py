"""Copies in a store: what removes them, when an upload stops that nobody waits for, and what killed commands leave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.handover.serving import kept_folders
from pipelines.run_folder import RunDir, write_record
from pipelines.upload import background, checkpoints, finished, lease
from pipelines.upload.background import GivenUp, Uploads, check_wanted
from pipelines.upload.finished import Finished, take
from pmlm_core import stores
from pmlm_core.errors import ConfigError
from pmlm_core.training import checkpoint


def run_with(folder: Path, *steps: int) -> RunDir:
    """A run with checkpoints of these steps."""
    for step in steps:
        made = checkpoint.folder_of(folder / "checkpoints", step)
        made.mkdir(parents=True)
        for name in ("model", "optimizer"):
            (made / name).write_text(f"{name} {step}")
        files = {p.name: {"bytes": p.stat().st_size, "sha256": checkpoint.sha256(p)} for p in made.iterdir()}
        content = {"format_version": checkpoint.FORMAT_VERSION, "step": step, "score": None, "files": files}
        (made / checkpoint.MANIFEST).write_text(json.dumps(content))
    return RunDir(folder)


def mirror(run: RunDir, home: Path, keep: int = 1, warn: Callable[[str], None] = print) -> list[str]:
    return checkpoints.mirror(run, str(home), keep, warn)


def steps_in(home: Path) -> list[int]:
    """Steps of the checkpoints there, of which every byte is right."""
    folders = checkpoint.all_steps(home / "checkpoints")
    return [checkpoint.step_of(path.name) or 0 for path in folders if checkpoint.damage(path) is None]


# ---- what is removed ----


@pytest.mark.parametrize("first", ["the one that is behind", "the one that is ahead"])
def test_of_two_that_copy_at_the_same_time_none_removes_what_the_other_has_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
):
    home = tmp_path / "home"
    behind, ahead = run_with(tmp_path / "behind", 5, 10), run_with(tmp_path / "ahead", 15, 20)
    one, other = (behind, ahead) if first == "the one that is behind" else (ahead, behind)
    really = checkpoints._send

    def meanwhile(run: RunDir, name: str, home_: str, *more: Any) -> bool:
        if run == one:
            mirror(other, home)
        return really(run, name, home_, *more)

    monkeypatch.setattr(checkpoints, "_send", meanwhile)
    mirror(one, home)
    assert 20 in steps_in(home)
    mirror(ahead, home)
    assert steps_in(home) == [20]


def test_nothing_is_removed_before_all_that_is_to_stay_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    mirror(run_with(tmp_path / "run", 5), home)
    run = run_with(tmp_path / "run", 10)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_send", lambda *_: False)  # pruned before it was copied
        assert mirror(run, home) == []
    assert steps_in(home) == [5]
    (home / "checkpoints" / "step-00000007").mkdir()  # half copied, by a command that was killed
    assert mirror(run, home) == ["step-00000010"]
    assert [path.name for path in (home / "checkpoints").iterdir()] == ["step-00000010"]


# ---- what is left out ----


@pytest.mark.parametrize(
    ("step", "reason", "all_there"),
    [
        (5, "away", False),
        (10, "away", False),
        (5, "torn", True),  # nobody writes it again
        (10, "torn", False),  # the same command sets it aside, and writes it again
    ],
)
def test_all_is_there_only_where_nothing_that_should_be_was_left_out(
    tmp_path: Path, step: int, reason: str, all_there: bool
):
    run, home, told = run_with(tmp_path / "run", 5, 10), tmp_path / "home", list[str]()

    def uploads() -> Uploads:
        return Uploads(lambda warn: mirror(run, home, keep=2, warn=warn), "home", lambda kind, text: told.append(text))

    manifest = checkpoint.folder_of(run.checkpoints, step) / checkpoint.MANIFEST
    whole = manifest.read_text()
    if reason == "away":
        manifest.unlink()
        manifest.mkdir()  # it cannot be read, as on a disk that fails for a moment
    else:
        manifest.write_text("torn")
    assert uploads().close() == all_there
    assert f"step-{step:08d} is not uploaded" in " ".join(told)
    assert steps_in(home) == [15 - step]
    if reason == "away":
        manifest.rmdir()
    manifest.write_text(whole)
    assert uploads().close()
    assert steps_in(home) == [5, 10]


def test_a_checkpoint_that_was_pruned_before_it_was_copied_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, home = run_with(tmp_path / "run", 5), tmp_path / "home"
    monkeypatch.setattr(checkpoints, "_send", lambda *_: False)
    assert not Uploads(lambda warn: mirror(run, home), str(home), lambda kind, text: None).close()


def test_a_stray_name_is_left_out_aloud_and_the_rest_is_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, home, back = tmp_path / "seed-0", str(tmp_path / "home"), tmp_path / "back"
    (folder / "model").mkdir(parents=True)
    for name in ("scores.json", "model/config.json", "notes.txt~", "model/#config.json#"):
        (folder / name).write_text(name)
    sent = Finished()
    assert sent.send(folder, home)
    (folder / "scores.json").write_text("{}")
    assert sent.send(folder, home)
    told = capsys.readouterr().out
    for name in ("notes.txt~", "#config.json#"):
        assert told.count(name) == 1
    assert not Finished().send(folder, home)  # another command finds all of it there
    assert take(home, back, ["scores.json"]) is None
    assert sorted(path.name for path in back.rglob("*") if path.is_file()) == ["config.json", "scores.json"]
    (folder / "notes.txt~").rename(folder / "notes.txt")
    assert sent.send(folder, home)
    assert (tmp_path / "home" / "notes.txt").read_text() == "notes.txt~"


def test_a_folder_that_goes_on_changing_is_not_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, home = tmp_path / "seed-0", tmp_path / "home"
    folder.mkdir()
    (folder / "scores.json").touch()
    really = finished._copy

    def grows(path: Path, target: str) -> None:
        really(path, target)
        path.write_text(path.read_text() + "more")

    def send_all(warn: Callable[[str], None]) -> list[str]:
        Finished().send(folder, str(home))
        return []

    with monkeypatch.context() as patch:
        patch.setattr(finished, "_copy", grows)
        assert not Uploads(send_all, str(home), print).close()
    assert Uploads(send_all, str(home), print).close()


# ---- an upload that nobody waits for ----


def test_an_upload_that_is_given_up_changes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "_LEAVING_S", 0.2)
    home, told, goes_on = tmp_path / "home", list[str](), threading.Event()
    run = run_with(tmp_path / "run", 5)
    mirror(run, home)
    run_with(tmp_path / "run", 10)
    really = checkpoints.storage.copy_file

    def slowly(local: Path, uri: str) -> None:
        goes_on.wait(30)
        really(local, uri)

    monkeypatch.setattr(checkpoints.storage, "copy_file", slowly)
    uploads = Uploads(lambda warn: mirror(run, home), str(home), lambda kind, text: told.append(f"{kind}: {text}"))
    assert not uploads.close(leaving=True)
    goes_on.set()
    assert uploads._thread is not None
    uploads._thread.join(30)
    assert steps_in(home) == [5]
    assert len(told) == 1
    assert told[0].startswith("warning: ")
    assert "has not taken all checkpoints within" in told[0]
    assert mirror(run, home) == ["step-00000010"]
    assert steps_in(home) == [10]


def test_a_signal_while_it_is_waited_for_gives_it_up(tmp_path: Path, request: pytest.FixtureRequest):
    goes_on, wanted = threading.Event(), list[bool]()

    def slowly(warn: Any) -> list[str]:
        goes_on.wait(30)
        try:
            check_wanted()
        except GivenUp:
            wanted.append(False)
            raise
        return []

    uploads = Uploads(slowly, str(tmp_path), lambda kind, text: None)
    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        uploads.close()
    goes_on.set()
    assert uploads._ended.wait(30)
    assert wanted == [False]


def test_neither_does_one_of_a_finished_folder(tmp_path: Path):
    folder, home, given_up = tmp_path / "seed-0", tmp_path / "home", threading.Event()
    folder.mkdir()
    (folder / "scores.json").write_text("{}")
    token = background._given_up.set(given_up)
    try:
        Finished().send(folder, str(home))
        (folder / "scores.json").write_text("{1}")
        given_up.set()
        with pytest.raises(GivenUp):
            Finished().send(folder, str(home))
    finally:
        background._given_up.reset(token)
    assert (home / "scores.json").read_text() == "{}"


def test_who_leaves_has_no_patience_with_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, patience = run_with(tmp_path / "run", 5), list[float]()
    monkeypatch.setattr(checkpoints.storage, "copy_file", lambda local, uri: patience.append(stores.patience()))
    uploads = Uploads(lambda warn: mirror(run, tmp_path / "home"), "home", lambda kind, text: None)
    assert uploads.close(leaving=True)
    assert patience == [background._LEAVING_PATIENCE_S] * 3


@pytest.mark.parametrize("end", ["uploads.close(leaving=True); raise Terminated", "raise Terminated"])
def test_a_command_that_leaves_ends_though_its_upload_does_not(end: str):
    program = f"""
import threading, time
from concurrent.futures import ThreadPoolExecutor
from pipelines import cli
from pipelines.leaving import Terminated
from pipelines.upload import background

background._LEAVING_S, begun = 0.5, threading.Event()
def mirror(warn):
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(time.sleep, 100)
        begun.set()
        slow.result()

def work(arguments):
    uploads = background.Uploads(mirror, "s3://slow", print)
    uploads.wake()
    begun.wait()
    {end}

cli._dispatch = work
cli.main([])
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90)
    assert time.monotonic() - begun < 80
    assert done.returncode == 143
    assert "terminated; the same command goes on" in done.stderr
    if "close" in end:
        assert "s3://slow has not taken all checkpoints" in done.stdout


def test_outside_an_upload_everything_is_wanted():
    check_wanted()


# ---- who uses it ----


@pytest.mark.parametrize("place", ["the same folder", "a copy", "a copy on another machine"])
def test_a_copy_of_a_run_folder_is_refused_while_the_command_of_the_original_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    for name, seconds in (("_RENEW_S", 0.1), ("_LOST_S", 5.0), ("_LOOK_S", 0.1)):
        monkeypatch.setattr(lease, name, seconds)
    run, home = run_with(tmp_path / "laptop" / "run", 5), str(tmp_path / "home")
    write_record(run, {"started": time.time()})
    copied = RunDir(tmp_path / "server" / "run")
    shutil.copytree(run.path, copied.path)  # with all times, as rsync does
    with lease.kept(run, home, "pmlm pretrain"):
        lease.take(run, home, "pmlm pretrain", print)
        if place == "a copy on another machine":
            monkeypatch.setattr(lease, "_pids_of", lambda: "another")
        if place == "the same folder":  # under another name, where its lock is what counts
            (tmp_path / "mounted").symlink_to(run.path.parent)
            lease.take(RunDir(tmp_path / "mounted" / "run"), home, "pmlm pretrain", print)
        else:
            with pytest.raises(ConfigError, match="is in use by pmlm pretrain"):
                lease.take(copied, home, "pmlm pretrain", print)


# ---- what killed commands leave ----


def test_what_was_half_copied_into_a_folder_goes_with_the_next_command(tmp_path: Path):
    run, home = run_with(tmp_path / "run", 5), tmp_path / "home"
    write_record(run, {"started": 1.0})
    mirror(run, home)
    left = home / "checkpoints" / "step-00000005" / ".model.77.0123abcd.tmp"
    own = home / ".notes.tmp"
    for path in (left, own):
        path.touch()
    lease.take(run, str(home), "pmlm pretrain", print)
    assert not left.exists()
    assert own.exists()
    assert steps_in(home) == [5]


def test_what_a_killed_attempt_left_in_the_run_goes_with_the_next(tmp_path: Path):
    for name in ("leaving-0123", "failure-0123.json", ".keeper-0123", "failure.json"):
        (tmp_path / name).touch()
    with kept_folders([tmp_path], [], wanted=False) as keeper:
        assert keeper is None
    assert os.listdir(tmp_path) == ["failure.json"]
