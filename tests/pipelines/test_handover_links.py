"""Models and data that consist of links: a worker elsewhere is sent what the links lead to, and nothing else."""

import shutil
from pathlib import Path

import pytest
from finetuning_data import make_checkpoint

from pipelines.finetune.source import open_source
from pipelines.handover import links
from pipelines.handover.files import address
from pipelines.handover.links import led_to
from pipelines.handover.serving import kept_folders
from pipelines.model_here import local_copy
from pmlm_core import storage
from pmlm_core.errors import DataError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PMLM_STORE_SECONDS", "1")


def hub_snapshot(cache: Path, model: str) -> Path:
    """The model as the Hugging Face hub's cache holds one."""
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "0123"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for number, file in enumerate(sorted(Path(model).iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    (blobs / "other").write_text("of another model")
    return snapshot


def test_a_model_and_data_behind_links_are_sent_and_links_in_a_run_are_not(
    tmp_path: Path, sample_tokenizer_dir: str, ray_session: None
):
    model = hub_snapshot(tmp_path / "hub", make_checkpoint(tmp_path / "made", sample_tokenizer_dir))
    data, run, private = (tmp_path / name for name in ("data", "data/out/run", "private"))
    for folder in (run, private, tmp_path / "disk" / "deep", tmp_path / "further"):
        folder.mkdir(parents=True)
    (private / "file").write_text("private")
    (run / "link").symlink_to(private)
    (data / "train").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "deep" / "a.tsv").write_text("text\n")
    (tmp_path / "further" / "b.tsv").write_text("more\n")
    (tmp_path / "disk" / "b.tsv").symlink_to(tmp_path / "further" / "b.tsv")
    with kept_folders([run], [str(data), str(model)], wanted=True) as keeper:
        assert keeper is not None
        copy = local_copy(address(keeper, "-", model))
        assert open_source(copy).sha256 == open_source(str(model)).sha256
        assert storage.read_bytes(address(keeper, "-", data / "train" / "deep" / "a.tsv")) == b"text\n"
        assert storage.read_bytes(address(keeper, "-", data / "train" / "b.tsv")) == b"more\n"
        for path in (run / "link" / "file", private / "file", tmp_path / "hub" / "blobs" / "other"):
            with pytest.raises(DataError, match="not a place that was handed to the workers"):
                storage.read_bytes(address(keeper, "-", path))
        with pytest.raises(PermissionError, match="not a place that was handed to the workers"):
            storage.write_bytes(address(keeper, "-", data / "train" / "new"), b"written")


def test_links_to_nowhere_in_circles_and_to_folders_above_name_nothing(tmp_path: Path):
    folder, disk = tmp_path / "folder", tmp_path / "disk"
    folder.mkdir()
    disk.mkdir()
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "gone").symlink_to(tmp_path / "nothing")
    (folder / "all").symlink_to("/")
    (folder / "above").symlink_to("..")
    (folder / "here").symlink_to(".")
    (folder / "disk").symlink_to(disk)
    (disk / "back").symlink_to(folder)
    (disk / "again").symlink_to(disk)
    assert led_to([str(folder), str(tmp_path / "nothing")]) == [str(disk)]


def test_no_more_than_so_many_entries_are_looked_at_the_nearest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("near", "far"):
        (tmp_path / "disk" / name).mkdir(parents=True)
    deep = tmp_path / "folder" / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (tmp_path / "folder" / "near").symlink_to(tmp_path / "disk" / "near")
    (deep / "far").symlink_to(tmp_path / "disk" / "far")
    assert [Path(path).name for path in led_to([str(tmp_path / "folder")])] == ["near", "far"]
    monkeypatch.setattr(links, "_AT_MOST", 4)
    assert [Path(path).name for path in led_to([str(tmp_path / "folder")])] == ["near"]
