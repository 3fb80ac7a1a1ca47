"""A sweep copied to a real S3 server, and gone on with from there after the driver's disk was lost."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sweeping_data import make_sweep
from test_sweep_killed import start

from pipelines.sweep import run as stage
from pipelines.sweep import upload
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import courses
from pipelines.sweep.strategies import plan_of
from pipelines.sweep.trials import Known, Point, has_ended, known_trials
from pipelines.upload import finished, lease
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, ConfigError
from pmlm_core.training import checkpoint
from tests.bucket_server import bucket_on_a_server
from tests.processes import below, wait_until, wait_until_gone

LONGER = {"num_train_epochs": 6, "max_train_rows": 60}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with bucket_on_a_server("swept") as uri:
        yield uri


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMLM_STORE_SECONDS", "0.5")
    for name, seconds in (("_RENEW_S", 0.2), ("_LOST_S", 1.0), ("_LOOK_S", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


def swept(options: dict[str, Any]) -> dict[str, Any]:
    config = SweepConfig(**options)
    config.validate()
    stage.run(config)
    return json.loads((Path(config.output_dir) / "sweep" / "reviews" / "result.json").read_text())


def copied(root: str) -> list[str]:
    """Checkpoints that are whole there; nothing is read, for they come and go while trials run."""
    names = list(storage.folders_in(root))
    return [name for name in names if checkpoint.MANIFEST in storage.names_in(storage.join(root, name))]


def searched(trials: Path) -> dict[str, tuple[Any, bytes]]:
    """Of every trial of the search: its epochs and scores, and its predictions of the split that is chosen by."""
    found = {}
    for folder in trials.glob("*-seed-1"):
        told = json.loads((folder / "scores.json").read_text())
        predictions = (folder / "predictions" / "predictions.dev.tsv").read_bytes()
        found[folder.name] = ((told["epochs"], told["scores"]["dev"], told["best_epoch"]), predictions)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["random", "optuna"])
def test_a_sweep_whose_disk_was_lost_repeats_no_finished_trial_and_ends_as_one_in_peace(
    tmp_path: Path, sample_tokenizer_dir: str, bucket: str, strategy: str
):
    made = make_sweep(tmp_path, sample_tokenizer_dir, num_samples=4, stop_hopeless=False, options=LONGER)
    made |= {"strategy": strategy, "max_concurrent_trials": 1}
    place = f"{bucket}/{tmp_path.name}"
    options = asdict(SweepConfig(**made, upload_dir=place))
    sweep, log, home = tmp_path / "out" / "sweep", tmp_path / "log.txt", storage.join(place, "sweep")
    root = storage.join(home, "reviews", "trials")

    def there() -> dict[str, set[str]]:
        """Ended trials and those with a checkpoint, in the store."""
        names = list(storage.folders_in(root))
        ended = {name for name in names if finished.is_there(storage.join(root, name))}
        begun = {name for name in names if copied(storage.join(root, name, "checkpoints"))}
        return {"ended": ended, "begun": begun - ended}

    driver = start(options, log)
    wait_until(lambda: (now := there())["ended"] and now["begun"], driver, log)
    machine = [driver.pid, *below(driver.pid)]  # with its Ray
    for pid in machine:
        os.kill(pid, signal.SIGKILL)
    driver.wait()
    wait_until_gone(machine)
    before = there()
    journals = {name: storage.read_bytes(storage.join(root, name, "metrics.jsonl")) for name in before["ended"]}
    shutil.rmtree(tmp_path / "out")
    storage.remove_file(storage.join(home, lease.NOTE))  # as who knows that the machine is gone

    again = start(options, log)
    assert again.wait(timeout=400) == 0, log.read_text()[-3000:]
    told = log.read_text()
    assert f"fetched {len(before['ended'])} ended trials of reviews from" in told
    for name in before["ended"]:
        assert (sweep / "reviews" / "trials" / name / "metrics.jsonl").read_bytes().startswith(journals[name])
    for name in before["begun"]:
        events = [json.loads(line) for line in (sweep / "reviews" / "trials" / name / "events.jsonl").open()]
        assert next(event for event in events if event["kind"] == "resumed")["step"] > 0
    result = json.loads((sweep / "reviews" / "result.json").read_text())
    assert len(result["configurations"]) == 4
    assert all(row["params"] for row in result["configurations"])
    if strategy == "random":
        swept({**made, "output_dir": str(tmp_path / "peace"), "tracking_uri": "none"})
        in_peace = searched(tmp_path / "peace" / "sweep" / "reviews" / "trials")
        assert len(in_peace) == 4
        assert searched(sweep / "reviews" / "trials") == in_peace
    client = MlflowClient(made["tracking_uri"])
    found = client.search_runs([client.get_experiment_by_name("pmlm-reviews").experiment_id])
    assert [each.info.status for each in found] == ["FINISHED"] * 6  # parent, four trials, one more seed: none twice

    shutil.rmtree(tmp_path / "out")
    last = start(options, log)
    assert last.wait(timeout=100) == 0, log.read_text()[-3000:]
    assert "reviews is finished: it was swept before" in log.read_text()
    assert json.loads((sweep / "reviews" / "result.json").read_text()) == result
    assert (sweep / "reviews" / "trials" / result["winner"]["trial"] / "model" / "config.json").is_file()
    assert there() == {"ended": {path.name for path in (sweep / "reviews" / "trials").iterdir()}, "begun": set()}
    assert not any("checkpoints" in storage.folders_in(storage.join(root, name)) for name in storage.folders_in(root))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
class TestHere:
    def test_a_trial_tried_again_is_begun_there_too_and_models_that_are_cleared_away_go(
        self, tmp_path: Path, sample_tokenizer_dir: str, bucket: str
    ):
        place = f"{bucket}/{tmp_path.name}"
        made = make_sweep(tmp_path, sample_tokenizer_dir, upload_dir=place, stop_hopeless=False, num_samples=2)
        swept({**made, "finalists": 0, "tracking_uri": "none"})
        root = storage.join(place, "sweep", "reviews", "trials")
        trials = tmp_path / "out" / "sweep" / "reviews" / "trials"
        for folder in trials.iterdir():
            told = finished.manifest_in(storage.join(root, folder.name))
            assert told is not None
            mine = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            assert {*told["files"], *told["beside"]} == mine - {"events.jsonl", ".lock"}
        models = [name for name in storage.folders_in(root) if "model" in storage.folders_in(storage.join(root, name))]
        assert len(models) == 1

        name = models[0]
        (trials / name / "scores.json").rename(trials / name / "failure.json")  # as one that has failed for good
        (found, *_), _ = courses(SweepConfig(**made, finalists=0))
        with upload.uploading([found]) as news:
            news()
        assert "failure.json" in (finished.manifest_in(storage.join(root, name)) or {})["files"]
        (trials / name / "failure.json").unlink()
        with upload.uploading([found]):
            pass
        assert finished.manifest_in(storage.join(root, name)) is None


def settled(made: dict[str, Any]) -> list[Any]:
    found, _ = courses(SweepConfig(**made))
    for course in found:
        stage.open_record(course.run, course.identity(), {})
    return found


def test_another_sweep_a_living_driver_and_a_store_that_is_away_are_refused(
    tmp_path: Path, sample_tokenizer_dir: str, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "_LOST_S", 5.0)
    place = f"{bucket}/{tmp_path.name}"
    made = make_sweep(tmp_path, sample_tokenizer_dir, upload_dir=place)
    first = settled(made)
    with upload.lease_of(first):
        upload.fetch(first)
        with pytest.raises(ConfigError, match=r"in use by pmlm sweep \(process .*another folder: end it"):
            swept({**made, "output_dir": str(tmp_path / "b")})
    with pytest.raises(ConfigError, match=r"num_samples was 3 and is 5.*another run_name"):
        swept({**made, "output_dir": str(tmp_path / "c"), "num_samples": 5})
    away = {**made, "upload_dir": "s3://away", "output_dir": str(tmp_path / "d")}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="command again when the store is back"):
        swept(away)
    (tmp_path / "d" / "sweep" / "reviews" / "trials").mkdir()
    upload.fetch(settled(away))  # there is something to go on from


def test_a_population_is_refused():
    with pytest.raises(ConfigError, match="pbt's population is kept by Tune in pickled files"):
        SweepConfig(["rte"], "m", ["d"], strategy="pbt", upload_dir="s3://bucket/sweeps").validate()


def test_of_a_damaged_trial_there_the_result_is_not_taken_over(
    tmp_path: Path, sample_tokenizer_dir: str, bucket: str, capsys: Any
):
    place = f"{bucket}/{tmp_path.name}"
    (course,) = settled(make_sweep(tmp_path, sample_tokenizer_dir, upload_dir=place))
    for name in ("a-seed-1", "b-seed-1"):
        folder = course.trials / name
        folder.mkdir(parents=True)
        for file in ("point.json", "scores.json", "cost.json"):
            (folder / file).write_text("{}")
    (course.run.path / "result.json").write_text("{}")
    with upload.uploading([course]):
        pass
    home = storage.join(place, "sweep", "reviews")
    storage.write_bytes(storage.join(home, "trials", "b-seed-1", "cost.json"), b"rotten")
    for wanted in ({"a-seed-1"}, {"a-seed-1", "b-seed-1"}):
        shutil.rmtree(tmp_path / "out")
        (course,) = settled(make_sweep(tmp_path, sample_tokenizer_dir, upload_dir=place))
        upload.fetch([course])
        assert {path.name for path in course.trials.iterdir() if has_ended(path)} == wanted
        assert (course.run.path / "result.json").exists() == (len(wanted) == 2)
        assert ("is damaged (cost.json has 6 bytes" in capsys.readouterr().out) == (len(wanted) == 1)
        if len(wanted) == 1:
            (course.trials / "b-seed-1").mkdir(exist_ok=True)
            for file in ("point.json", "scores.json", "cost.json"):  # done again
                (course.trials / "b-seed-1" / file).write_text("{}")
            (course.run.path / "result.json").write_text("{}")
            with upload.uploading([course]):
                pass


def test_a_store_that_fails_while_trials_run_costs_a_warning(
    tmp_path: Path, sample_tokenizer_dir: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    place = tmp_path / "elsewhere"
    (course,) = settled(make_sweep(tmp_path, sample_tokenizer_dir, upload_dir=str(place)))
    place.write_text("in the way")
    with upload.uploading([course]) as news:
        news()
    assert "trials cannot be uploaded to" in (told := " ".join(capsys.readouterr().out.split()))
    assert told.endswith("the same command again catches up")


@pytest.mark.parametrize("fixed", [{}, {"weight_decay": 0.05}], ids=["all searched", "one fixed"])
@pytest.mark.parametrize("strategy", ["optuna", "optuna_pareto"])
def test_what_ended_before_is_known_to_a_search_without_tunes_state_and_what_had_begun_is_proposed_first(
    tmp_path: Path, sample_tokenizer_dir: str, strategy: str, fixed: dict[str, float]
):
    made = make_sweep(tmp_path, sample_tokenizer_dir, strategy=strategy, num_samples=9, finalists=0, space=fixed)
    (course,), _ = courses(SweepConfig(**made))

    def point(rate: float) -> Point:
        return Point({"learning_rate": rate, "weight_decay": 0.05, "batch_size": 8}, course.seeds[0])

    known = [
        Known(point(2e-3), "finished", 90.0, 10.0),
        Known(point(3e-3), "stopped", 70.0, 5.0),
        Known(point(4e-3), "failed", None, 1.0),
        Known(point(5e-3), "", 80.0, 3.0),
    ]
    plan = plan_of(course, known=known)
    assert plan.num_samples == 6
    plan.search_alg.set_search_properties(None, None, plan.param_space)
    first, second = (plan.search_alg.suggest(name) for name in ("one", "two"))
    assert {**first, **fixed} == known[3].point.params
    assert not fixed.keys() & first.keys()
    assert second["learning_rate"] not in {each.point.params["learning_rate"] for each in known}
    values = [trial.values for trial in plan.search_alg.searcher._ot_study.get_trials() if trial.state.is_finished()]
    assert values == [[90.0] if strategy == "optuna" else [90.0, 10.0], None, None]
    fresh = plan_of(course)
    assert fresh.num_samples == 9
    fresh.search_alg.set_search_properties(None, None, fresh.param_space)
    assert fresh.search_alg.suggest("one")["learning_rate"] != second["learning_rate"]
    assert list(known_trials(tmp_path, "accuracy", "dev")) == []
