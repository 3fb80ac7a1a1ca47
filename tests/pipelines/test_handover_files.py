"""The driver's files under addresses: read as they were written, nothing else is shown, one process changes them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.handover import files, keeper
from pipelines.handover.files import address, end_keeper, kept, start_keeper
from pipelines.handover.keeper import Keeper
from pipelines.handover.standin import standin
from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.stores import StoreError


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
        lambda: one.ask("extend", str(folder / "x"), 3, b"late", "one"),
        lambda: one.rename(str(folder / "x"), str(folder / "y")),
    ):
        with pytest.raises(StoreError, match="in this one's place"):
            work()
    assert (folder / "x").read_bytes() == b"one"
    one.let_go(str(folder))  # not his any more
    with pytest.raises(StoreError):
        storage.write_bytes(address(name, "one", folder / "x"), b"late")
    other.let_go(str(folder))
    storage.write_bytes(address(name, "one", folder / "x"), b"free")


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
