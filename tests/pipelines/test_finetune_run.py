"""`pmlm finetune` in this process: what it makes, resumes, refuses, and says."""

import itertools
import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from finetuning_data import make_checkpoint, options_for, write_pairs, write_questions, write_reviews
from safetensors.torch import load_file

from pipelines import team
from pipelines.finetune import conclude, epochs, loop
from pipelines.finetune import run as stage
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import Job, settle
from pipelines.finetune.run import dry_run, run
from pipelines.finetune.rundir import open_run
from pipelines.leaving import Left, Terminated, heed_sigterm
from pipelines.lock import locked
from pipelines.team import Team
from pmlm_core.errors import ConfigError, DataError, TrainingError
from pmlm_core.training import checkpoint


class Pulled(Exception):
    """The plug."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "final", sample_tokenizer_dir)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory, model: str, reviews: str) -> Path:
    return finetuned(options_for("classification", model, reviews, tmp_path_factory.mktemp("peace")))


def finetuned(options: dict[str, Any]) -> Path:
    """Run it; returns the folder of the first seed."""
    config = FinetuneConfig(**options)
    config.validate()
    run(config)
    return Path(options["output_dir"]) / "run" / f"seed-{config.all_seeds()[0]}"


def test_the_stores_password_is_not_written_into_the_run(tmp_path: Path, model: str, reviews: str):
    options = options_for("classification", model, reviews, tmp_path)
    job, _ = settle(FinetuneConfig(**{**options, "tracking_uri": "postgresql://me:hush@db/mlflow"}))
    assert not open_run(job)
    record = job.run.record.read_text()
    assert "postgresql://***@db/mlflow" in record
    assert "hush" not in record


def test_of_two_that_start_at_once_the_second_writes_no_record(tmp_path: Path, model: str, reviews: str):
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder, "pmlm finetune"), pytest.raises(ConfigError, match="is in use by pmlm finetune"):
        finetuned(options_for("classification", model, reviews, tmp_path))
    assert not (folder / "run.json").exists()


def test_a_seed_of_another_run_is_not_taken_for_one_of_this(tmp_path: Path, model: str, reviews: str):
    options = options_for("classification", model, reviews, tmp_path, num_train_epochs=1)
    record = finetuned(options) / "run.json"
    content = json.loads(record.read_text())
    content["identity"]["options"]["num_train_epochs"] = 2
    record.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"'seed-0' in .* was started otherwise: num_train_epochs was 2 and is 1"):
        finetuned(options)


@pytest.mark.parametrize("name", ["run.json", "seed-0/run.json", "seed-0/scores.json"])
def test_a_record_that_cannot_be_read_for_a_moment_does_not_end_the_run(
    tmp_path: Path, model: str, reviews: str, in_peace: Path, name: str
):
    shutil.copytree(in_peace.parent, tmp_path / "run")
    record = tmp_path / "run" / name
    whole = record.rename(tmp_path / "whole")
    record.mkdir()  # it cannot be read, as on a disk that fails for a moment
    options = options_for("classification", model, reviews, tmp_path)
    with pytest.raises(ConfigError, match=rf"{name} cannot be read: .* give the same command again") as refused:
        finetuned(options)
    assert "run_name" not in str(refused.value)
    assert "remove" not in str(refused.value)
    record.rmdir()
    whole.rename(record)
    finetuned(options)


def scores(seed: Path) -> dict[str, Any]:
    found = json.loads((seed / "scores.json").read_text())
    del found["pretrained"]
    return found


def weights(seed: Path) -> dict[str, torch.Tensor]:
    return load_file(seed / "model" / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    assert scores(one) == scores(other)
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_it_learns_and_leaves_a_folder_that_loads_anywhere(in_peace: Path, reviews: str):
    found = scores(in_peace)
    assert found["scores"]["dev"]["accuracy"] == 100.0
    baseline = found["baselines"]["dev"]
    assert baseline["what"] == "always 'ship'"
    assert baseline["scores"]["accuracy"] == pytest.approx(100 * 2 / 3)
    assert [epoch["epoch"] for epoch in found["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert not (in_peace / "checkpoints").exists()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    loaded = AutoModelForSequenceClassification.from_pretrained(in_peace / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(in_peace / "model")
    said = [line.split("\t")[0] for line in (Path(reviews) / "test.tsv").read_text().splitlines()[1:]]
    table = (in_peace / "predictions" / "predictions.test.tsv").read_text().splitlines()[1:]
    for text, line in zip(said, table, strict=True):
        label = loaded.config.id2label[int(loaded(**tokenizer(text, return_tensors="pt")).logits.argmax())]
        assert line.split("\t")[1] == label == ("ship" if "ship" in text else "house")
    task = json.loads((in_peace / "model" / "pmlm_task.json").read_text())
    assert (task["labels"], task["recipe"]["max_length"], task["epoch"]) == (
        ["house", "ship"],
        48,
        found["best_epoch"],
    )
    assert len(task["pretrained"]["sha256"]) == 64


@pytest.mark.parametrize("at", [1, "terminated at 4", "told to leave", "final"])
def test_a_killed_run_ends_bit_for_bit_as_one_in_peace(
    at: int | str, tmp_path: Path, model: str, reviews: str, in_peace: Path, monkeypatch: pytest.MonkeyPatch
):
    options = options_for("classification", model, reviews, tmp_path, save_steps=3)
    evaluated = 0

    def pull(*arguments: Any, **named: Any) -> Any:
        raise Pulled

    def count(self: epochs.Chooser, model: Any) -> dict[str, float]:
        nonlocal evaluated
        evaluated += 1
        if evaluated == 5 and at != 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return pull() if evaluated > 1 and at == 1 else really(self, model)

    really = epochs.Chooser.scores
    with monkeypatch.context() as patch:
        if at == "final":
            patch.setattr(loop, "conclude", pull)
        elif at == "told to leave":  # as a worker is, at the fifth of its steps
            calls = itertools.count(1)
            patch.setattr(team, "Team", partial(Team, told=lambda: next(calls) == 5))
        else:
            patch.setattr(epochs.Chooser, "scores", count)
        before = signal.getsignal(signal.SIGTERM)
        heed_sigterm()
        with pytest.raises((Pulled, Terminated, Left)) as met:
            finetuned(options)
        signal.signal(signal.SIGTERM, before)
        assert met.type is {"terminated at 4": Terminated, "told to leave": Left}.get(str(at), Pulled)
    seed = tmp_path / "run" / "seed-0"
    assert not (seed / "scores.json").exists()
    assert (seed / "checkpoints").exists()
    if at == "told to leave":
        assert [path.name for path in checkpoint.all_steps(seed / "checkpoints")] == ["step-00000005"]
    assert_same(finetuned(options), in_peace)


def test_a_seed_that_goes_on_keeps_its_micro_batches(
    tmp_path: Path, model: str, reviews: str, monkeypatch: pytest.MonkeyPatch
):
    options = options_for("classification", model, reviews, tmp_path, micro_batch_size=None)
    really, counted = epochs.Chooser.scores, itertools.count(1)

    def scores(self: epochs.Chooser, model: Any) -> dict[str, float]:
        if next(counted) == 2:
            raise Pulled
        return really(self, model)

    def fit(job: Job) -> None:
        raise Pulled(job.micro_batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "_fit", fit)
        for workers, rows in ((1, 8), (2, 4)):
            with pytest.raises(Pulled) as met:
                finetuned({**options, "num_workers": workers})
            assert met.value.args == (rows,)
    monkeypatch.setattr(epochs.Chooser, "scores", scores)
    with pytest.raises(Pulled):
        finetuned(options)
    monkeypatch.setattr(stage, "_fit", fit)
    for asked, rows in ((None, 8), (2, 2)):
        with pytest.raises(Pulled) as met:
            finetuned({**options, "num_workers": 2, "micro_batch_size": asked})
        assert met.value.args == (rows,)


def test_a_finished_run_says_so_and_does_nothing(in_peace: Path, model: str, reviews: str, capsys: Any):
    before = (in_peace / "metrics.jsonl").read_bytes()
    finetuned(options_for("classification", model, reviews, in_peace.parent.parent))
    printed = capsys.readouterr().out
    assert "seed 0 is finished" in printed
    assert "100.00" in printed
    assert (in_peace / "metrics.jsonl").read_bytes() == before


def test_other_options_in_the_same_folder_are_refused(in_peace: Path, model: str, reviews: str):
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.003 and is 0\.1"):
        finetuned(options_for("classification", model, reviews, in_peace.parent.parent, learning_rate=0.1))


def test_seeds_are_trained_one_after_the_other_and_summed_up(
    tmp_path: Path, model: str, reviews: str, in_peace: Path, capsys: Any
):
    options = options_for("classification", model, reviews, tmp_path)
    assert_same(finetuned({**options, "seeds": "0,3"}), in_peace)
    content = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert list(content["seeds"]) == ["0", "3"]
    both = [content["seeds"][seed]["dev"]["matthews"] for seed in ("0", "3")]
    assert content["summary"]["dev"]["matthews"]["mean"] == pytest.approx(sum(both) / 2)
    zero, three = weights(tmp_path / "run" / "seed-0"), weights(tmp_path / "run" / "seed-3")
    assert not torch.equal(zero["classifier.weight"], three["classifier.weight"])
    assert "median" in capsys.readouterr().out


def test_from_scratch_has_the_architecture_but_not_the_weights(tmp_path: Path, model: str, reviews: str):
    frozen = {"num_train_epochs": 1, "learning_rate": 1e-12}
    options = options_for("classification", model, reviews, tmp_path, **frozen)
    kept = weights(finetuned(options))
    fresh = weights(finetuned({**options, "output_dir": str(tmp_path / "fresh"), "from_scratch": True}))
    start = load_file(Path(model) / "model.safetensors")
    name = "pmlm.embeddings.word.weight"
    assert torch.allclose(kept[name], start[name], atol=1e-6)
    assert fresh[name].shape == start[name].shape
    assert not torch.allclose(fresh[name], start[name], atol=0.1)


def test_early_stopping_takes_the_best_and_says_so(tmp_path: Path, model: str, reviews: str, capsys: Any):
    options = options_for("classification", model, reviews, tmp_path, num_train_epochs=30, early_stopping_patience=2)
    found = scores(finetuned(options))
    assert len(found["epochs"]) == found["best_epoch"] + 2 < 30
    assert "stopped early" in capsys.readouterr().out


def test_bad_rows_are_listed_counted_and_with_strict_refused(tmp_path: Path, model: str, capsys: Any):
    folder = Path(write_reviews(tmp_path / "data"))
    with (folder / "train.tsv").open("a") as file:
        file.write("a row without its label\n")
    options = options_for("classification", model, str(folder), tmp_path, num_train_epochs=1)
    with pytest.raises(DataError, match="row 62"):
        finetuned({**options, "strict": True})
    finetuned(options)
    assert "1 bad rows are left out (wrong number of fields 1)" in capsys.readouterr().out.replace("\n", " ")
    (line,) = (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 62


@pytest.mark.parametrize(("whole", "options"), [(True, {}), (False, {}), (True, {"max_predict_rows": 3})])
def test_a_test_set_without_all_its_rows_is_no_submission(
    tmp_path: Path, model: str, whole: bool, options: dict[str, Any], capsys: Any
):
    data = tmp_path / "RTE"
    data.mkdir()
    rows = [f"{n}\tThe old man saw the ship.\tHe saw a ship." for n in range(4)]
    for split in ("train", "dev"):
        lines = [f"{row}\t{('entailment', 'not_entailment')[n % 2]}" for n, row in enumerate(rows * 2)]
        (data / f"{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *lines, ""]))
    end = [] if whole else ["4\tone column is missing"]
    (data / "test.tsv").write_text("\n".join(["index\tsentence1\tsentence2", *rows, *end, ""]))
    folder = finetuned(options_for("rte", model, str(tmp_path), tmp_path / "out", num_train_epochs=1, **options))
    official = whole and not options
    name = "RTE.tsv" if official else "RTE.part-of-test.tsv"
    predictions = json.loads((folder / "scores.json").read_text())["predictions"]
    assert f"predictions/{name}" in predictions
    assert ("predictions/RTE.tsv" in predictions) is official
    said = "split 'test': predictions will lack 1 row, so 'part-of-test' is no submission"
    assert (said in " ".join(capsys.readouterr().out.split())) is not official


def test_questions(tmp_path: Path, model: str):
    folder = write_questions(tmp_path / "data")
    options = options_for("qa", model, folder, tmp_path, num_train_epochs=20, learning_rate=1e-2)
    seed = finetuned({**options, "max_length": 28, "doc_stride": 8})
    assert scores(seed)["scores"]["dev"]["f1"] > 60.0
    answers = json.loads((seed / "predictions" / "predictions.dev.json").read_text())
    assert set(answers) == {f"dev{number}" for number in range(8)}


def test_generation(tmp_path: Path, model: str):
    folder = write_pairs(tmp_path / "data")
    options = options_for("seq2seq", model, folder, tmp_path, num_train_epochs=25, learning_rate=1e-2)
    settings = {"max_target_length": 6, "target_mask_prob": 0.0, "num_beams": 2, "no_repeat_ngram_size": 0}
    found = scores(finetuned({**options, **settings}))
    assert found["scores"]["test"]["rouge1"] > 60.0
    saved = json.loads((tmp_path / "run" / "seed-0" / "model" / "generation_config.json").read_text())
    assert (saved["num_beams"], saved["max_new_tokens"]) == (2, 6)


def test_a_subset_is_drawn_said_and_recorded(tmp_path: Path, model: str, reviews: str, capsys: Any):
    options = options_for("classification", model, reviews, tmp_path, max_train_rows=20, num_train_epochs=1)
    found = scores(finetuned(options))
    assert found["rows"]["train"] == {"used": 20, "in_files": 60}
    told = capsys.readouterr().out
    assert "split 'train': a subset of 20 of 60 examples is used (max_train_rows)" in told
    assert "warning: split" not in told  # it was asked for


def test_dry_run_makes_nothing(tmp_path: Path, model: str, reviews: str, capsys: Any):
    dry_run(FinetuneConfig(**options_for("classification", model, reviews, tmp_path / "out")))
    assert "parameters" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_what_is_finished_is_said_and_that_the_test_files_are_others(
    tmp_path: Path, model: str, reviews: str, capsys: Any
):
    data = tmp_path / "data"
    shutil.copytree(reviews, data)
    options = options_for("classification", model, str(data), tmp_path / "out", num_train_epochs=1)
    seed = finetuned(options)
    capsys.readouterr()
    dry_run(FinetuneConfig(**options))
    told = capsys.readouterr().out
    assert "seed 0 is finished: it was trained and scored before" in told
    assert told.endswith(f"every seed in {seed.parent} is finished: nothing is left to train\n")
    assert "are others" not in told
    dry_run(FinetuneConfig(**options, seeds="0,1"))
    told = capsys.readouterr().out
    assert "seed 0 is finished" in told
    assert " 1 seed: " in told
    with (data / "test.tsv").open("a") as file:
        file.write("The boy saw the ship.\n")
    for command in (run, dry_run):
        command(FinetuneConfig(**options))
        told = " ".join(capsys.readouterr().out.split())
        assert "seed 0 is kept as it is, and the examples of split 'test' are others than it predicted" in told
        assert f"`pmlm predict --model {seed / 'model'} --inputs FILE" in told
    scores = json.loads((seed / "scores.json").read_text())
    for part in ("scores", "examples"):  # as it is where there was no test file
        del scores[part]["test"]
    (seed / "scores.json").write_text(json.dumps(scores))
    dry_run(FinetuneConfig(**options))
    told = " ".join(capsys.readouterr().out.split())
    assert "seed 0 is kept as it is, and the examples of split 'test' were not there when it was made" in told


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ((loop, "train_step"), "give a smaller micro_batch_size than"),
        ((epochs, "outputs_of"), "give a smaller eval_batch_size than 32"),
        ((conclude, "outputs_of"), "give a smaller eval_batch_size than 32"),
    ],
    ids=["training", "an epoch's scores", "predictions"],
)
def test_a_full_gpu_is_said_with_the_option_that_helps(
    tmp_path: Path, model: str, reviews: str, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str], sentence: str
):
    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(*where, full)
    with pytest.raises(TrainingError, match=rf"the GPU's memory is full: {sentence}.*\(CUDA out of memory"):
        run(FinetuneConfig(**options_for("classification", model, reviews, tmp_path / "out", num_train_epochs=1)))
