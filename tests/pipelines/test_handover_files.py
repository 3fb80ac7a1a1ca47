"""The driver's files under addresses: read as they were written, nothing else is shown, one process changes them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.handover import files, keeper
from pipelines.handover.files import address, kept
from pipelines.handover.keeper import Keeper
from pipelines.handover.sending import Lines
from pipelines.handover.serving import end_keeper, start_keeper
from pipelines.handover.standin import standin
from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.stores import StoreError
from pmlm_core.training.checkpoint import sweep


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[tuple[str, Path]]:
    """A keeper, and the folder that it writes to; beside that lies one that it may read."""
    root = tmp_path_factory.mktemp("kept")
    for name in ("runs", "data", "private"):
        (root / name).mkdir()
        (root / name / "file").write_text(name)
    name = start_keeper([str(root / "runs")], [str(root / "data")])
    yield name, root / "runs"
    end_keeper(name)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMLM_STORE_SECONDS", "1")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e/f/g"]), st.binary(max_size=200), max_size=4))
def test_a_folder_is_the_same_by_path_and_by_address(place: tuple[str, Path], content: dict[str, bytes]):
    name, runs = place
    folder = runs / os.urandom(6).hex()
    there = address(name, "me", folder)
    for path, data in content.items():
        storage.write_bytes(storage.join(there, *path.split("/")), data)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == content
    for path, data in content.items():
        assert storage.read_bytes(storage.join(there, *path.split("/"))) == data
        assert storage.size(storage.join(there, *path.split("/"))) == len(data)
    for below in ("", "b", "e"):
        here = str(folder / below)
        uri = storage.join(there, below) if below else there
        assert list(storage.names_in(uri)) == list(storage.names_in(here))
        assert list(storage.folders_in(uri)) == list(storage.folders_in(here))
    storage.remove_folder(there)
    storage.remove_folder(there)
    assert not folder.exists()


def test_a_large_file_goes_in_parts_and_is_there_when_it_is_whole(
    place: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name, runs = place
    monkeypatch.setattr(files, "_PART", 1000)
    (tmp_path / "large").write_bytes(os.urandom(10_500))
    there = storage.join(address(name, "me", runs), "large")
    seen: list[list[str]] = []
    really = files.Kept.ask

    def ask(self: files.Kept, method: str, *arguments: Any) -> Any:
        seen.append(sorted(path.name for path in runs.iterdir() if "large" in path.name))
        return really(self, method, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files.Kept, "ask", ask)
        storage.copy_file(tmp_path / "large", there)
    assert len(seen) > 10
    assert not any("large" in names for names in seen)
    assert (runs / "large").read_bytes() == (tmp_path / "large").read_bytes()
    storage.fetch_file(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    assert storage.read_range(there, 4_321, 1_234) == (tmp_path / "large").read_bytes()[4_321:5_555]


def test_nothing_but_what_was_handed_over_is_shown_or_changed(place: tuple[str, Path]):
    name, runs = place
    root = runs.parent
    (runs / "link").symlink_to(root / "private")
    assert storage.read_bytes(address(name, "me", root / "data" / "file")) == b"data"
    for path in (
        root / "private" / "file",
        runs / ".." / "private" / "file",
        runs / "link" / "file",
        Path("/etc/passwd"),
    ):
        with pytest.raises(DataError, match="not a place that was handed to the workers"):
            storage.read_bytes(address(name, "me", path))
    for path in (root / "data" / "file", root / "private" / "new", runs / "link" / "new"):
        with pytest.raises(PermissionError, match="not a place that was handed to the workers"):
            storage.write_bytes(address(name, "me", path), b"changed")
    with pytest.raises(PermissionError):
        storage.remove_file(address(name, "me", root / "data" / "file"))
    assert (root / "data" / "file").read_text() == "data"
    with pytest.raises(DataError, match="no such file"):  # at once: nothing is waited for
        storage.read_bytes(address(name, "me", runs / "nothing"))
    with pytest.raises(FileNotFoundError):
        storage.fetch_file(address(name, "me", runs / "nothing"), runs / "x")


def test_of_a_folder_that_is_held_nobody_else_changes_anything(place: tuple[str, Path]):
    name, runs = place
    folder = runs / "held"
    one, other = (kept(address(name, who, folder)) for who in ("one", "other"))
    assert one.hold(str(folder), at_once=False)
    assert not other.hold(str(folder), at_once=False)
    storage.write_bytes(address(name, "one", folder / "x"), b"one")
    with pytest.raises(StoreError, match="another worker was put in this one's place"):
        storage.write_bytes(address(name, "other", folder / "x"), b"other")
    assert other.hold(str(folder), at_once=True)  # the first is known to be dead
    for work in (
        lambda: storage.write_bytes(address(name, "one", folder / "x"), b"late"),
        lambda: storage.remove_file(address(name, "one", folder / "x")),
        lambda: one.insist("extend", str(folder / "x"), 3, b"late", "one"),
        lambda: one.rename(str(folder / "x"), str(folder / "y")),
    ):
        with pytest.raises(StoreError, match="in this one's place"):
            work()
    assert (folder / "x").read_bytes() == b"one"
    assert not one.renew(str(folder))
    one.let_go(str(folder))  # not his any more
    with pytest.raises(StoreError):
        storage.write_bytes(address(name, "one", folder / "x"), b"late")
    one.insist("create", str(folder / "failure"), b"the first")  # an error is told whoever holds it
    one.insist("create", str(folder / "failure"), b"the second")
    assert (folder / "failure").read_bytes() == b"the first"
    assert other.renew(str(folder))
    other.let_go(str(folder))
    assert not other.renew(str(folder))  # which would not take it again
    storage.write_bytes(address(name, "one", folder / "x"), b"free")


class Lossy:
    """Calls of one method fail, before they are made or after; how many of each."""

    def __init__(self, patch: pytest.MonkeyPatch, method: str, before: int = 0, after: int = 0) -> None:
        self._really, self._method, self.left = files.Kept.ask, method, {"before": before, "after": after}
        patch.setattr(files.Kept, "ask", lambda kept, *asked: self._ask(kept, *asked))

    def _ask(self, kept: files.Kept, method: str, *arguments: Any) -> Any:
        when = next((when for when, count in self.left.items() if count), None) if method == self._method else None
        if when is not None:
            self.left[when] -= 1
        answer = None if when == "before" else self._really(kept, method, *arguments)
        if when is not None:
            raise ConnectionError("no answer")
        return answer


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_that_is_lost_is_made_again_and_what_was_done_is_not_done_twice(
    place: tuple[str, Path], when: str, monkeypatch: pytest.MonkeyPatch
):
    name, runs = place
    monkeypatch.setenv("PMLM_STORE_SECONDS", "20")
    folder = runs / f"lost-{when}"
    there = address(name, "me", folder)
    (folder / "half").mkdir(parents=True)
    (folder / "half" / "file").touch()
    for method, work in (
        ("append", lambda: sending_lines(folder, there)),
        ("rename", lambda: kept(there).rename(str(folder / "half"), str(folder / "whole"))),
        ("listed", lambda: list(storage.names_in(storage.join(there, "whole")))),
        ("hold", lambda: kept(there).hold(str(folder), at_once=True)),
    ):
        with monkeypatch.context() as patch:
            lossy = Lossy(patch, method, **{when: 1})
            found = work()
            assert lossy.left == {"before": 0, "after": 0}
        if method == "listed":  # a folder that cannot be listed is not an empty one
            assert found == ["file"]
    assert (folder / "there").read_text() == "one line\n"
    assert not (folder / "half").exists()


def sending_lines(folder: Path, there: str) -> None:
    (folder / "here").write_text("one line\n")
    Lines(folder / "here", storage.join(there, "there")).send()


def test_a_file_that_lost_a_part_does_not_take_the_place_of_a_whole_one(
    place: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name, runs = place
    there = storage.join(address(name, "me", runs), "weights")
    storage.write_bytes(there, b"whole")
    (tmp_path / "new").write_bytes(bytes(20_000))
    monkeypatch.setattr(files, "_PART", 1000)
    with monkeypatch.context() as patch:
        patch.setenv("PMLM_STORE_SECONDS", "0")
        Lossy(patch, "write", before=1)
        with pytest.raises(StoreError, match="no answer"):
            storage.copy_file(tmp_path / "new", there)
        assert (runs / "weights").read_bytes() == b"whole"
    assert not list(runs.glob(".weights*"))
    storage.copy_file(tmp_path / "new", there)
    assert (runs / "weights").read_bytes() == bytes(20_000)


def test_what_a_killed_holder_left_half_done_goes_with_the_next(place: tuple[str, Path]):
    name, runs = place
    folder = runs / "left"
    for half in (".writing-step-00000010-7", ".pruned-step-00000005-9"):
        (folder / "checkpoints" / half).mkdir(parents=True)
    (folder / "checkpoints" / "step-00000005").mkdir()
    (folder / ".scores.json.0123.kept").touch()
    (folder / ".mlflow.json.77.0123.tmp").touch()  # the driver's own, which may be at it now
    assert kept(address(name, "next", folder)).hold(str(folder), at_once=True)
    assert {path.name for path in folder.rglob("*")} == {"checkpoints", "step-00000005", ".mlflow.json.77.0123.tmp"}


def test_what_made_way_for_a_folder_that_then_did_not_come_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Killed(BaseException):
        pass

    root = tmp_path / "run" / "checkpoints"
    final, again = root / "step-00000010", root / ".writing-step-00000010-7"
    for tidied in (lambda: Keeper([str(tmp_path)]).hold(str(tmp_path / "run"), "next", True), lambda: sweep(root)):
        for folder in (final, again):
            folder.mkdir(parents=True)
            (folder / "file").write_text(folder.name)
        really, renamed = Path.rename, list[str]()

        def rename(path: Path, target: Path, really: Any = really, renamed: list[str] = renamed) -> Path:
            renamed.append(path.name)
            if len(renamed) == 2:
                raise Killed
            return really(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(Killed):
                Keeper([str(tmp_path)]).rename(str(again), str(final), "me")
        assert not final.exists()
        tidied()
        assert [path.name for path in root.iterdir()] == [final.name]
        assert (final / "file").read_text() == final.name
        again.mkdir()
        assert Keeper([str(tmp_path)]).rename(str(again), str(final), "me") == (None, None)
        assert not list(final.iterdir())
        assert [path.name for path in root.iterdir()] == [final.name]
        final.rmdir()


def test_lines_that_could_not_be_added_are_added_when_they_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked, path, really = Keeper([str(tmp_path)]), tmp_path / "events", os.write

    def half(handle: int, data: bytes) -> int:
        return really(handle, data[: len(data) // 2])

    def refuse(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for write in (refuse, half):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            assert asked.append(str(path), b"one line\n", "first")[1][0] == errno.ENOSPC
    for _ in range(2):
        assert asked.append(str(path), b"one line\n", "first") == (None, None)
    assert asked.append(str(path), b"another\n", "second") == (None, None)
    assert path.read_bytes() == b"one \none line\nanother\n"


def test_figures_are_forced_to_disk_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, really, forced = tmp_path / "metrics.jsonl", os.fsync, list[int]()

    def force(handle: int) -> None:
        forced.append(os.fstat(handle).st_size)
        really(handle)

    monkeypatch.setattr(os, "fsync", force)
    assert Keeper([str(tmp_path)]).extend(str(path), 0, b"one line\n", "me") == (True, None)
    assert forced == [9]


def test_a_keeper_that_dies_is_there_again(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import ray

    monkeypatch.setenv("PMLM_STORE_SECONDS", "60")
    name = start_keeper([str(tmp_path)], [])
    there = address(name, "me", tmp_path / "x")
    storage.write_bytes(there, b"1")
    ray.kill(files._actor(name), no_restart=False)
    storage.write_bytes(there, b"2")
    assert storage.read_bytes(there) == b"2"
    end_keeper(name)


def test_a_holder_that_is_not_heard_of_is_followed_and_a_lock_of_this_machine_is_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from pipelines.lock import locked

    asked = Keeper([str(tmp_path)])
    folder = str(tmp_path / "trial")
    assert asked.hold(folder, "one", False) == (True, None)
    assert asked.hold(folder, "other", False) == (False, None)
    monkeypatch.setattr(keeper, "LEASE_S", 0.0)
    assert asked.hold(folder, "other", False) == (True, None)
    monkeypatch.setattr(keeper, "LEASE_S", 60.0)
    with pytest.raises(Exception, match="in use by"), locked(folder, "a trial"):
        pass
    asked.let_go(folder, "other")
    with locked(folder, "a trial"):
        assert asked.hold(folder, "one", False) == (False, None)
    assert asked.hold(folder, "one", False) == (True, None)


def test_a_keeper_that_has_ended_is_waited_for_and_then_said(ray_session: None, tmp_path: Path):
    name = start_keeper([str(tmp_path)], [])
    there = address(name, "me", tmp_path / "x")
    storage.write_bytes(there, b"1")
    end_keeper(name)
    with pytest.raises(StoreError, match="the machine of the command does not answer"):
        storage.read_bytes(there)


def test_a_stand_in_is_shared_and_goes_with_the_last_who_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path))
    left = tmp_path / "away" / "killed"
    left.mkdir(parents=True)
    (left / ".in-use").touch()
    with standin("key") as one:
        assert not left.exists()
        (one / "file").touch()
        with standin("key") as other:
            assert other == one
        assert (one / "file").exists()
        with standin("another"):
            assert (one / "file").exists()
    assert not one.exists()
