"""Examples encoded on nodes that do not see the command's disk: the same features, in the command's cache."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews

from pipelines import ray_map
from pipelines.finetune import encode
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.encode import Work, encode_split
from pipelines.finetune.job import settle
from pipelines.handover import files
from pipelines.handover.serving import end_keeper, start_keeper
from tests.ray_nodes import blind_nodes, cluster_of


def work_on(folder: Path, tokenizer_dir: str) -> Work:
    model, data = make_checkpoint(folder / "model", tokenizer_dir), write_reviews(folder / "data")
    job = settle(FinetuneConfig(**options_for("classification", model, data, folder / "out")))[0]
    return Work("classification", data, job.train.split, job.recipe, model, True, job.config.task_options())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_WORTH_RAY", 0)
    monkeypatch.setattr(encode, "_CHUNK", 16)


@pytest.fixture
def features(tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch, ray_session: None) -> Any:
    """The work, and what came of it in parts by tasks that see the folder."""
    work = work_on(tmp_path, sample_tokenizer_dir)
    in_parts(monkeypatch)
    return work, content(encode_split(work, tmp_path / "seen", num_workers=2))


def test_a_task_that_sees_nothing_reads_and_gives_all_through_the_keeper(
    tmp_path: Path, features: Any, monkeypatch: pytest.MonkeyPatch
):
    work, wanted = features
    wrote: list[tuple[str, Path]] = []
    asked: list[tuple[str, str]] = []
    really_write, really_ask = encode._write, files.Kept.ask

    @contextmanager
    def unmarked(writes: list[Path], reads: list[str], *, wanted: bool) -> Iterator[str]:
        keeper = start_keeper([str(path) for path in writes], reads)
        yield keeper
        end_keeper(keeper)

    def write(**given: Any) -> dict[str, Any]:
        wrote.append((given["work"].data_dir, given["folder"]))
        return really_write(**given)

    def ask(self: files.Kept, method: str, *arguments: Any) -> Any:
        asked.append((method, arguments[0]))
        return really_ask(self, method, *arguments)

    def here(task: Callable[[Any], Any], items: list[Any], **_: Any) -> list[Any]:
        return [task(item) for item in items]

    monkeypatch.setattr(encode, "kept_folders", unmarked)
    monkeypatch.setattr(encode, "_write", write)
    monkeypatch.setattr(files.Kept, "ask", ask)
    monkeypatch.setattr(ray_map, "over_ray", here)
    made = encode_split(work, tmp_path / "unseen", num_workers=2)
    assert content(made) == wanted
    assert len(wrote) == 4
    assert all(data_dir.startswith("driver://") for data_dir, _ in wrote)
    assert not [folder for _, folder in wrote if folder.exists() or tmp_path in folder.parents]
    read = {Path(path).name for method, path in asked if method == "read"}
    assert "train.tsv" in read
    assert "model.safetensors" not in read
    assert {Path(path).name for method, path in asked if method == "write"} == set(wanted) - {"manifest.json"}
    assert [path.name for path in (tmp_path / "unseen").iterdir()] == [made.name]


def test_on_a_cluster_tasks_are_told_of_a_keeper_and_write_where_they_see(
    tmp_path: Path, features: Any, monkeypatch: pytest.MonkeyPatch
):
    work, wanted = features
    told: list[Any] = []
    really = ray_map.over_ray

    def over_ray(task: Any, items: list[Any], **options: Any) -> Any:
        told.append(task.keywords["keeper"])
        return really(task, items, **options)

    monkeypatch.setattr(ray_map, "over_ray", over_ray)
    monkeypatch.setenv("RAY_ADDRESS", "this one")
    made = encode_split(work, tmp_path / "cluster", num_workers=2)
    assert content(made) == wanted
    assert told[0].startswith("keeper-")


_ENCODE = """
import pickle, sys
from pathlib import Path
from pipelines.finetune import encode
encode._WORTH_RAY, encode._CHUNK = 0, 16
encode.encode_split(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), num_workers=2)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_that_see_nothing_encode_what_the_command_would_have(
    tmp_path: Path, sample_tokenizer_dir: str, features: Any
):
    here = tmp_path / "disk"
    here.mkdir()
    (here / "work").write_bytes(pickle.dumps(work_on(here, sample_tokenizer_dir)))
    with cluster_of(0) as cluster, blind_nodes(cluster, here, 2):
        environment = {**os.environ, "RAY_ADDRESS": cluster.address, "PMLM_CACHE": str(here / "cache")}
        command = [sys.executable, "-c", _ENCODE, str(here / "work"), str(here / "features")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (made,) = (here / "features").iterdir()
    assert content(made) == features[1]
