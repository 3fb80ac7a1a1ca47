"""Scores of trivial baselines, on data of each kind."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import make_checkpoint, options_for, write_pairs, write_questions

from pipelines.finetune.baseline import baseline_of
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import settle
from pipelines.finetune.results import baselines_of
from pipelines.finetune.splits import read_chosen
from pmlm_core.tasks.registry import get_task


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "final", sample_tokenizer_dir)


def found(task: str, model: str, data: str, output: Path, **options: Any) -> dict[str, Any] | None:
    job, _ = settle(FinetuneConfig(**{**options_for(task, model, data, output), **options}))
    assert job.choose is not None
    examples = list(read_chosen(job.task, job.config.data_dir, job.choose.split))
    return baseline_of(job, job.choose, examples, ("pearson", "spearman"))


def test_the_mean_correlates_with_nothing_and_nobody_is_warned(
    tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture
):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\na\t1\nb\t2\nc\t4.5\n")
    with caplog.at_level(logging.WARNING):
        one = found("regression", model, str(tmp_path), tmp_path / "out")
    assert one == {"what": "always 2.5, the mean", "scores": {"pearson": 0.0, "spearman": 0.0}}
    assert not caplog.records


def test_where_every_question_has_an_answer_there_is_none(tmp_path: Path, model: str):
    data = write_questions(tmp_path / "data")
    assert found("qa", model, data, tmp_path / "out") is None


def test_never_an_answer_is_right_where_there_is_none(tmp_path: Path, model: str):
    data = Path(write_questions(tmp_path / "data"))
    content = json.loads((data / "dev.json").read_text())
    questions = [each for paragraph in content["data"][0]["paragraphs"] for each in paragraph["qas"]]
    for question in questions[: len(questions) // 4]:
        question |= {"answers": [], "is_impossible": True}
    for question in questions[len(questions) // 4 :]:
        question["is_impossible"] = False
    (data / "dev.json").write_text(json.dumps(content))
    one = found("qa", model, str(data), tmp_path / "out", can_be_unanswerable=True)
    assert one is not None
    assert (one["what"], one["scores"]["f1"]) == ("never an answer", 25.0)


def test_the_first_sentence_and_files_that_are_gone(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    data = Path(write_pairs(tmp_path / "data"))
    for split in ("train", "dev"):
        lines = [{"src": "The sea is wide. It is deep.", "tgt": "The sea is wide."}] * 3
        (data / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    one = found("seq2seq", model, str(data), tmp_path / "out")
    assert one is not None
    assert one["what"] == "the first sentence of the source"
    assert one["scores"]["rouge1"] == pytest.approx(100.0)
    job, _ = settle(FinetuneConfig(**options_for("seq2seq", model, str(data), tmp_path / "out")))
    assert job.choose is not None
    (data / "train.jsonl").unlink()
    assert baseline_of(job, job.choose, [], ()) == one  # computed once


def test_no_run_is_lost_for_it(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\na\tyes\nb\tno\n")
    job, _ = settle(FinetuneConfig(**options_for("classification", model, str(tmp_path), tmp_path / "out")))
    assert job.choose is not None
    (tmp_path / "train.tsv").unlink()
    assert baseline_of(job, job.choose, [], ()) is None
    assert "cannot be told" in capsys.readouterr().out


def test_it_is_told_where_it_cannot_be_kept(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\na\t1\nb\t2\nc\t4.5\n")
    (tmp_path / "file").write_text("no folder")
    one = found("regression", model, str(tmp_path), tmp_path / "out", cache_dir=str(tmp_path / "file" / "below"))
    assert one is not None
    assert one["what"] == "always 2.5, the mean"
    assert "cannot be told" not in capsys.readouterr().out


def test_three_sentences_of_the_news():
    assert get_task("cnn_dailymail").lead_sentences == 3
    assert get_task("xsum").lead_sentences == 1


def test_seeds_of_before_have_none():
    new = {"baselines": {"dev": {"what": "always 'a'", "scores": {"accuracy": 50.0}}}}
    assert baselines_of([{}, new]) == new["baselines"]
    assert baselines_of([{}]) == {}
