"""What the doctor reads out of a recipe and out of a command."""

import re
from pathlib import Path

import pytest
from predicting_data import make_finetuned
from sweeping_data import make_sweep

from pipelines.cli import main
from pipelines.doctor.config import DoctorConfig
from pipelines.doctor.demands import Place, settle
from pipelines.doctor.pretraining import PREPROCESSING
from pipelines.options import parse
from pipelines.run_place import work_folder
from pmlm_core.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


def test_a_recipe_gives_places_workers_and_what_they_weigh(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = settle(DoctorConfig(recipe="recipes/pretrain/base.yaml", paths=["s3://bucket/runs"]))
    at = {place.path: place for place in found.places}
    assert at["s3://bucket/runs"].written
    out = str(ROOT / "outputs/base")
    assert at[f"{out}/pretrain"].written
    assert at[f"{out}/pretrain"].renames
    assert at[f"{out}/blocks"] == Place(f"{out}/blocks", "preprocess output_dir", written=True, given=False)
    assert not at[str(ROOT / "data/corpus")].written  # above the wildcards
    reading, blocks, job = found.jobs
    assert (reading.stage, reading.num_workers, reading.most, reading.weight) == ("tokenizer", 1, None, None)
    assert (blocks.stage, blocks.cpus, blocks.most, blocks.weight) == ("preprocess", 1, None, PREPROCESSING)
    assert (job.stage, job.num_workers, job.gpus, job.group) == ("pretrain", 64, 1.0, True)
    # 16 bytes a parameter of state; five checkpoints at once of 12.
    assert 16 * 110e6 < job.weight.worker < 20e9
    assert job.weight.disk == pytest.approx(5 * 12 * 110e6, rel=0.02)
    assert not found.findings


def test_a_command_is_read_as_it_would_be_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    line = (
        "--strict -- pretrain --config recipes/pretrain/mini.yaml --data_dir s3://bucket/blocks?scheme=http "
        "--output_dir /shared/pretrain --num_workers 3 --batch_size 9 --tracking_uri http://mlflow:5000"
    )
    monkeypatch.setattr("pipelines.doctor.demands.weigh", lambda config: None)  # would ask the bucket
    config = parse("doctor", DoctorConfig, "", line.split(), ("doctor", "pretrain")).config
    assert config.strict
    found = settle(config)
    assert [(place.path, place.written) for place in found.places] == [
        ("/shared/pretrain", True),
        ("s3://bucket/blocks?scheme=http", False),
    ]
    assert found.jobs[0].num_workers == 3
    assert found.tracking_uri == "http://mlflow:5000"


def test_a_run_in_a_store_is_worked_on_on_a_disk_that_is_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path))
    line = ["pretrain", "--preset=tiny", "--data_dir=/data", "--output_dir=s3://bucket/runs"]
    found = settle(DoctorConfig(command=line))
    here = str(work_folder("s3://bucket/runs"))
    at = {place.path: place for place in found.places}
    assert at["s3://bucket/runs"].written
    assert at[here].renames
    assert at[here].through_driver
    assert at["/data"].through_driver
    assert [job.output_dir for job in found.jobs] == [here]  # whose room is weighed
    shared = settle(DoctorConfig(command=["sweep", "--benchmark=rte", "--model=/m", "--data_dir=/d", "--strategy=pbt"]))
    assert not next(place for place in shared.places if place.option == "sweep output_dir").through_driver


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "sweep"])
def test_the_place_that_runs_are_uploaded_to_is_looked_at(tmp_path, stage, sample_tokenizer_dir):
    made = make_sweep(tmp_path, sample_tokenizer_dir)
    what = {"pretrain": ["--preset=tiny"], "finetune": ["--task=rte"], "sweep": [f"--benchmark={made['benchmark'][0]}"]}
    line = [stage, *what[stage], "--data_dir=data", "--output_dir=out", "--upload_dir=s3://bucket/runs"]
    line += [] if stage == "pretrain" else [f"--model={made['model']}"]
    found = settle(DoctorConfig(command=line))
    assert Place("s3://bucket/runs", f"{stage} upload_dir", written=True) in found.places
    assert not found.findings


def test_fine_tuning_sweeps_and_prediction_weigh_what_their_dry_runs_say(tmp_path, sample_tokenizer_dir, capsys):
    sweep = make_sweep(tmp_path, sample_tokenizer_dir)
    model = sweep["model"]
    tune = ["finetune", "--task=classification", f"--model={model}", f"--data_dir={tmp_path / 'data'}"]
    tune += ["--max_length=48", "--batch_size=8", "--micro_batch_size=4", f"--output_dir={tmp_path / 'run'}"]
    (job,) = settle(DoctorConfig(command=tune)).jobs
    with pytest.raises(SystemExit):
        main([*tune, "--dry_run"])
    said = float(re.search(r"memory +(\S+) MB a worker", capsys.readouterr().out)[1])
    # Rows of the data are shorter than max_length.
    assert said - 0.05 <= job.weight.worker / 1e6 < said + 20
    assert 16 / 40 * job.weight.disk < job.weight.worker  # three checkpoints and a model; the state is 16 a parameter

    words = [f"--{name}={value}" for name, value in sweep.items() if name not in ("benchmark", "data_dir")]
    words += ["--benchmark", *sweep["benchmark"], "--data_dir", *sweep["data_dir"]]
    (trial,) = settle(DoctorConfig(command=["sweep", *words])).jobs
    assert trial.most is None
    assert trial.weight.worker == job.weight.worker

    folder = make_finetuned(tmp_path / "model", sample_tokenizer_dir, "classification")
    ask = ["predict", f"--model={folder}", "--inputs", "x.jsonl", "--output_dir=out"]
    (few,), (many,) = (settle(DoctorConfig(command=[*ask, f"--batch_size={rows}"])).jobs for rows in (1, 1000))
    assert 600e6 < few.weight.worker < many.weight.worker < 1e9
    assert few.weight.libraries == 0  # they are in it

    (unmade,) = settle(DoctorConfig(command=[word.replace(model, "/nowhere") for word in tune])).jobs
    assert unmade.weight is None


def test_a_sweep_names_folders_by_benchmark(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = settle(DoctorConfig(recipe="recipes/sweep/demo.yaml"))
    assert str(ROOT / "recipes/sample/pairs") in {place.path for place in found.places}
    assert found.jobs[0].stage == "sweep"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_asked_about(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = settle(DoctorConfig(recipe=str(path)))
    assert found.jobs
    assert not found.findings


def test_options_that_contradict_are_a_finding_of_the_recipe(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("pretrain:\n  preset: mini\n  batch_size: 7\n  num_workers: 2\n")
    (finding,) = settle(DoctorConfig(recipe=str(recipe))).findings
    assert finding.severity == "error"
    assert "batch_size" in finding.what


@pytest.mark.parametrize(
    ("command", "said"),
    [(["pretrian"], "is no command"), (["doctor"], "is no command"), (["pretrain", "--banana"], "unknown option")],
)
def test_a_command_that_is_none(command, said):
    with pytest.raises(ConfigError, match=said):
        settle(DoctorConfig(command=command))


def test_recipe_and_command_at_once_are_refused():
    with pytest.raises(ConfigError, match="not both"):
        DoctorConfig(command=["pretrain"], recipe="r.yaml").validate()
