"""`pmlm compare` on a real MLflow store and on the folders of the same runs."""

import csv
import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparing_data import Sweep, everything, make_finetune, make_sweep

from pipelines.cli import main
from pipelines.compare import mlflow_source
from pipelines.compare.config import CompareConfig
from pipelines.compare.folder_source import FolderSource
from pipelines.compare.mlflow_source import MlflowSource
from pipelines.compare.run import run
from pipelines.compare.runs import SWEEP, Run
from pmlm_core import storage
from pmlm_core.errors import ConfigError, PmlmError
from tests.bucket_server import bucket_on_a_server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Two benchmarks, three sweeps of six trials and their finalists, a run of pmlm finetune. Read it only."""
    root = tmp_path_factory.mktemp("compare")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    list(everything(root, uri, size=6))
    return uri, root


def read(store: tuple[str, Path], **options: Any) -> list[Run]:
    return MlflowSource(CompareConfig(tracking_uri=store[0], **options)).runs()


def trials(runs: list[Run]) -> list[Run]:
    return [each for each in runs if each.stage != SWEEP]


def test_everything_is_found_in_both_places_and_is_the_same(store: tuple[str, Path]):
    here = {each.id: each for each in read(store)}
    there = {each.id: each for each in FolderSource(CompareConfig(folders=[str(store[1])])).runs()}
    assert here.keys() == there.keys()
    assert len(trials(list(here.values()))) == 3 * 6 + 3 * 4 + 3
    for key, one in here.items():
        # MLflow's times are those of sending.
        assert replace(one, start=None, end=None, folder=None) == replace(there[key], start=None, end=None, folder=None)
        if one.stage != SWEEP:
            assert one.folder == there[key].folder


def test_histories_and_results_by_example_are_the_same_in_both_places(store: tuple[str, Path]):
    here, there = (
        MlflowSource(CompareConfig(tracking_uri=store[0])),
        FolderSource(CompareConfig(folders=[str(store[1])])),
    )
    runs = {each.id: each for each in there.runs()}
    finished = next(each for each in trials(read(store, benchmark=["rte"])) if each.outcome == "finished")
    failed = next(each for each in read(store, benchmark=["rte"]) if each.outcome == "failed")
    assert [epoch for epoch, _ in here.history(finished, "accuracy")] == list(
        range(1, int(finished.params["num_train_epochs"]) + 1)
    )
    for one in (finished, failed):
        assert here.history(one, "accuracy") == there.history(runs[one.id], "accuracy")
        assert here.paired(one, "dev") == there.paired(runs[one.id], "dev")
    assert here.paired(finished, "dev") is not None
    assert here.paired(finished, "test") is None
    assert here.paired(failed, "dev") is None


def test_many_runs_come_page_by_page(store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch):
    whole = {each.id for each in read(store)}
    monkeypatch.setattr(mlflow_source, "_PAGE", 2)
    assert {each.id for each in read(store)} == whole


def test_runs_are_chosen(store: tuple[str, Path]):
    assert {each.tags["task"] for each in trials(read(store, benchmark=["rte"]))} == {"rte"}
    assert {each.tags["sweep"] for each in read(store, sweep=["night"])} == {"night"}
    assert {each.stage for each in read(store, experiment=["pmlm-finetune"])} == {"finetune"}
    (sweep,) = [each for each in read(store, benchmark=["cola"]) if each.stage == SWEEP]
    assert len(trials(read(store, runs=[sweep.id]))) == 10
    one = trials(read(store))[0]
    assert [each.id for each in read(store, runs=[one.id])] == [one.id]
    both = read(store, runs=[one.id], experiment=["pmlm-finetune"])
    assert len(both) == 3 + (one.stage != "finetune")
    folders = FolderSource(CompareConfig(folders=[str(store[1])], sweep=["hyper"])).runs()
    assert {each.tags["sweep"] for each in folders} == {"hyper"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": ["mrpc"]}, "has no experiment 'pmlm-mrpc'; .*: pmlm-cola, pmlm-finetune, pmlm-rte"),
        ({"experiment": ["mine"]}, "has no experiment 'mine'"),
        ({"sweep": ["nigth"]}, "has no trial of sweep 'nigth'; sweeps: hyper, night"),
        ({"sweep": ["a'\""]}, "both kinds of quotes"),
        ({"runs": ["0" * 32]}, "has no run 0000"),
        ({"experiment": ["pmlm-finetune"], "benchmark": ["cola"]}, "runs is of benchmark cola; they are of rte"),
        ({"group_by": "colour"}, "group_by 'colour' is neither"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_there_is(
    store: tuple[str, Path], tmp_path: Path, options: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        run(CompareConfig(tracking_uri=store[0], output_dir=str(tmp_path / "out"), **options))


def test_an_empty_store_is_said_to_be_empty(tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(ConfigError, match=r"there is no MLflow store .*mlflow\.db"):
        read((uri, tmp_path))
    from pipelines.tracking.store import open_store

    open_store(uri, "other")
    with pytest.raises(ConfigError, match="no run of pmlm finetune or pmlm sweep; experiments: Default, other"):
        read((uri, tmp_path))
    with pytest.raises(ConfigError, match="there is no run of pmlm finetune or pmlm sweep in"):
        FolderSource(CompareConfig(folders=[str(tmp_path)])).runs()
    with pytest.raises(ConfigError, match="is no folder"):
        FolderSource(CompareConfig(folders=[str(tmp_path / "none")]))


def test_a_server_that_is_away_is_said_to_be(tmp_path: Path):
    with pytest.raises(PmlmError, match=r"MLflow at http://127\.0\.0\.1:1 does not answer"):
        read(("http://127.0.0.1:1", tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tested": -1}, "tested must be 0 or more"),
        ({"resamples": 10}, "resamples must be 100 or more"),
        ({"folders": ["a"], "runs": ["b"]}, "leave out --runs"),
        ({"tracking_uri": "none"}, "name the folders of the runs"),
        ({"output_dir": "s3://bucket/out"}, "must be a folder of this machine"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        CompareConfig(**options).validate()


def test_the_command_says_what_won_and_writes_it(
    store: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--tracking_uri", store[0], "--output_dir", str(output), "--resamples", "300"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "RTE: the best is lr " in said
    assert "95 % interval" in said
    assert "paired test over 277 examples" in said
    assert "failed: the loss is not finite" in said
    assert "comparing all runs that MLflow has" in said
    assert "baseline: accuracy 52.71 (dev)" in said
    assert "published: UniLMv2: accuracy 81.3 (dev)" in said
    assert f"made comparison page: {output / 'index.html'}" in said
    assert f"next: pmlm predict --model {store[1] / 'sweep'}" in said

    content = json.loads((output / "comparison.json").read_text())
    assert [each["benchmark"] for each in content["benchmarks"]] == ["cola", "rte"]
    rte = content["benchmarks"][1]
    assert rte["runs"] == {"finished": 17, "stopped": 4, "failed": 2}
    assert rte["headline"] in said
    assert rte["baseline"] == 52.71
    assert rte["groups"][0]["difference"] is None
    assert rte["groups"][1]["difference"]["test"] == "paired"
    assert {each["strategy"] for each in rte["sweeps"]} == {"random", "asha"}

    with (output / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(trials(read(store)))
    best = [row for row in rows if row["benchmark"] == "rte" and row["rank"] == "1"]
    assert {row["seed"] for row in best if row["counted"] == "True"} == {"1", "2", "3"}
    mean = sum(float(row["score"]) for row in best) / 3
    assert float(best[0]["group_mean"]) == pytest.approx(mean)
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert len(failed) == 3
    assert all("not finite" in row["reason"] for row in failed)


def test_a_sweep_that_was_removed_and_begun_again_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    size: dict[str, Any] = {"trials": 3, "stopped": 1, "failed": 0, "finalists": 0}
    removed = make_sweep(tmp_path, Sweep("night", "rte", **size), uri)
    old = {each.id for each in read((uri, tmp_path))}
    assert len(old) == 4
    shutil.rmtree(removed)
    assert {each.id for each in read((uri, tmp_path))} == old  # it was only moved away
    make_sweep(tmp_path, Sweep("night", "rte", **size, seed=5), uri)
    make_sweep(tmp_path / "elsewhere", Sweep("night", "rte", **size, seed=6), uri)
    capsys.readouterr()
    left = read((uri, tmp_path), sweep=["night"])
    assert len(left) == 8
    assert not {each.id for each in left} & old
    said = capsys.readouterr().out.replace("\n", " ")
    assert "sweep night was removed and begun again; left out: 3 trials of before (--runs" in said
    assert len(read((uri, tmp_path), runs=list(old))) == 4


def test_folders_give_the_same_comparison(store: tuple[str, Path], tmp_path: Path):
    options: dict[str, Any] = {"resamples": 200, "benchmark": ["rte"]}
    run(CompareConfig(tracking_uri=store[0], output_dir=str(tmp_path / "a"), experiment=["pmlm-rte"], **options))
    run(CompareConfig(folders=[str(store[1] / "sweep")], output_dir=str(tmp_path / "b"), **options))
    here, there = ((tmp_path / name / "comparison.json").read_text() for name in "ab")
    assert json.loads(here) == json.loads(there)


def test_cells_are_no_formulas_and_names_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_sweep(
        tmp_path,
        Sweep("=night[red]", "rte", trials=3, stopped=0, failed=1, finalists=1, seeds=2, hostile="=1+1 [bold]"),
    )
    run(CompareConfig(folders=[str(tmp_path)], output_dir=str(tmp_path / "out"), resamples=100))
    assert "[bold]" in capsys.readouterr().out
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        assert all(
            row["run_name"].startswith("'=1+1") and row["sweep"] == "'=night[red]" for row in csv.DictReader(file)
        )


def test_damaged_folders_are_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = make_finetune(tmp_path, "rte", "mine", 60.0, (1, 2), None)
    (folder / "seed-1" / "mlflow.json").write_text("{")
    (folder / "seed-2" / "paired" / "dev.json").write_text("[")
    source = FolderSource(CompareConfig(folders=[str(tmp_path)]))
    (left,) = source.runs()
    assert left.seed == "2"
    assert source.paired(left, "dev") is None
    said = capsys.readouterr().out
    assert "seed-1 is left out" in said
    assert "cannot be read" in said


def test_runs_that_mlflow_never_had_are_read_from_their_own_files(tmp_path: Path, sample_tokenizer_dir: str):
    from finetuning_data import make_checkpoint, options_for, write_reviews

    from pipelines.finetune.config import FinetuneConfig
    from pipelines.finetune.run import run as finetune

    checkpoint = make_checkpoint(tmp_path / "checkpoint", sample_tokenizer_dir)
    data = write_reviews(tmp_path / "reviews")
    for name, rate in (("slow", 1e-5), ("fast", 3e-3)):
        options = options_for("classification", checkpoint, data, tmp_path / "runs", run_name=name, learning_rate=rate)
        finetune(FinetuneConfig(**{**options, "num_train_epochs": 3, "seeds": "1,2"}))
    shutil.rmtree(tmp_path / "runs" / "features")
    for each in FolderSource(CompareConfig(folders=[str(tmp_path / "runs")])).runs():
        assert json.loads(each.tags["scorers"]).keys() == {"accuracy", "f1_macro", "matthews"}
    output = tmp_path / "out"
    run(CompareConfig(folders=[str(tmp_path / "runs")], output_dir=str(output), resamples=200))
    (found,) = json.loads((output / "comparison.json").read_text())["benchmarks"]
    assert found["runs"] == {"finished": 4}
    assert found["searched"] == ["learning_rate"]
    assert sorted(group["label"] for group in found["groups"]) == ["lr 0.003", "lr 1e-5"]
    assert [len(group["scores"]) for group in found["groups"]] == [2, 2]
    assert found["groups"][1]["difference"]["test"] == "paired"


def test_trials_that_mlflow_never_had_end_as_their_files_say(tmp_path: Path):
    """In a store, too: the file that says how a trial was stopped is fetched with the others."""
    sweep = tmp_path / "sweep" / "night" / "rte"
    options = {"task": "rte", "learning_rate": 1e-4, "num_train_epochs": 3}
    _json(sweep / "run.json", {"identity": {"options": {"strategy": "random", "finetune.learning_rate": 1e-4}}})
    endings: dict[str, dict[str, Any]] = {
        "finished": {"scores.json": {"task": "rte"}},
        "stopped": {"stopped.json": {"epoch": 1}},
        "failed": {"failure.json": {"message": "the loss is not finite"}},
        "silent": {},
    }
    for name, files in endings.items():
        trial = sweep / "trials" / name
        _json(trial / "run.json", {"identity": {"options": options}, "seed": 1})
        for file, content in files.items():
            _json(trial / file, content)

    def told(place: str) -> dict[str, tuple[str, str]]:
        with closing(FolderSource(CompareConfig(folders=[place]))) as source:
            return {each.name: (each.outcome, each.reason) for each in trials(source.runs())}

    expected = {
        "finished": ("finished", ""),
        "stopped": ("stopped", "stopped by the sweep as hopeless"),
        "failed": ("failed", "the loss is not finite"),
        "silent": ("running", "still running, or lost without a word"),
    }
    assert told(str(tmp_path)) == expected
    _json(sweep / "result.json", {})
    expected["silent"] = ("failed", "its process was lost")
    assert told(str(tmp_path)) == expected
    with bucket_on_a_server("compared") as bucket:
        for path in filter(Path.is_file, tmp_path.rglob("*")):
            storage.write_bytes(f"{bucket}/{path.relative_to(tmp_path)}", path.read_bytes())
        assert told(f"{bucket}/sweep") == expected


def _json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
