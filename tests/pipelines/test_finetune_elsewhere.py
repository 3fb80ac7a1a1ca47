"""A job on a machine that does not see the driver's files."""

from pathlib import Path

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews
from test_finetune_parts import job_for

from pipelines.finetune.elsewhere import folders_of, job_here, read_by


def test_it_keeps_what_it_computes_in_a_cache_of_its_own(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "machine"))
    model, data = make_checkpoint(tmp_path / "model", sample_tokenizer_dir), write_reviews(tmp_path / "data")
    job = job_for(options_for("classification", model, data, tmp_path / "out"))
    elsewhere = job_here(job, "keeper-1")  # which has left no mark in the run's folder
    assert job.cache_dir == tmp_path / "out" / "features"
    assert elsewhere.cache_dir == tmp_path / "machine" / "features"
    assert elsewhere.identity() == job.identity()
    (job.run.path / ".keeper-1").touch()
    assert job_here(job, "keeper-1").cache_dir == job.cache_dir


def test_a_file_named_by_its_full_path_is_asked_of_the_drivers_machine(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "machine"))
    model, data = make_checkpoint(tmp_path / "model", sample_tokenizer_dir), write_reviews(tmp_path / "data")
    named = next(Path(data).glob("train.*"))
    (tmp_path / "mine").mkdir()
    named = named.rename(tmp_path / "mine" / named.name)
    job = job_for(options_for("classification", model, data, tmp_path / "out", train_file=str(named)))
    elsewhere = job_here(job, "keeper-1")
    assert elsewhere.config.train_file == f"driver://keeper-1:-{named}"
    assert elsewhere.config.validation_file is None
    assert str(tmp_path / "mine") in read_by(job)
    assert folders_of({"train_file": "here.tsv", "test_file": "/there/x.tsv"}) == ["/there"]
