"""A job on a machine that does not see the driver's files."""

from pathlib import Path

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews
from test_finetune_parts import job_for

from pipelines.finetune.elsewhere import job_here


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
