"""`pmlm predict` in this process: what it sets aside, goes on with, and refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from finetuning_data import make_checkpoint
from predicting_data import files, predict, records, write_texts

from pipelines.predict import piece as piece_module
from pipelines.predict.config import PredictConfig
from pipelines.predict.run import dry_run
from pmlm_core.errors import CheckpointError, ConfigError, DataError
from pmlm_core.model import PmlmForSequenceClassification


class Pulled(Exception):
    """The plug."""


def test_bad_rows_are_set_aside_counted_and_with_strict_refused(tmp_path: Path, models: dict[str, str], capsys: Any):
    path = tmp_path / "in.jsonl"
    lines = [b'{"question": "who?", "context": "a man"}'] * 3
    lines[1:1] = [
        b"{",
        b'{"question": "who?"}',
        b'{"question": 3, "context": "x"}',
        b'{"question": "\xff", "context": "x"}',
    ]
    lines.append(b'{"question": " ", "context": "x"}')
    path.write_bytes(b"\n".join(lines))
    found = predict(models["question_answering"], [path], tmp_path / "out")
    assert [line["row"] for line in found] == [1, 6, 7]
    rejects = records(tmp_path / "out" / "rejects.jsonl")
    assert [(each["row"], each["field"], each["reason"]) for each in rejects] == [
        (2, None, "invalid JSON"),
        (3, "context", "missing field"),
        (4, "question", "not text"),
        (5, "question", "invalid UTF-8"),
        (8, "question", "empty text"),
    ]
    assert all(each["file"] == str(path) and str(path) in each["detail"] for each in rejects)
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 bad rows set aside" in printed
    assert "next: head" in printed
    for out in ("out", "new"):  # what was set aside before, and what is met now
        with pytest.raises(DataError, match=r"in\.jsonl, row 2: not JSON.*--strict"):
            predict(models["question_answering"], [path], tmp_path / out, strict=True)
    with pytest.raises(DataError, match=r"in\.jsonl, row 2: not JSON.*--strict"):
        dry_run(
            PredictConfig(
                model=models["question_answering"],
                inputs=[str(path)],
                output_dir=str(tmp_path / "out"),
                precision="fp32",
                strict=True,
            )
        )
    assert not list((tmp_path / "new" / "predictions").glob("*.jsonl"))


def test_interrupted_it_does_only_what_is_missing(
    tmp_path: Path, models: dict[str, str], texts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    path = write_texts(tmp_path / "in.jsonl", texts)
    model = models["classification"]
    predict(model, [path], tmp_path / "whole", piece_rows=10)
    really, done = piece_module.example_of, 0

    def count(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == 27:
            raise Pulled
        return really(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(piece_module, "example_of", count)
        with pytest.raises(Pulled):
            predict(model, [path], tmp_path / "out", piece_rows=10)
    assert len(list((tmp_path / "out" / "predictions").iterdir())) == 2
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    (tmp_path / "out" / "predictions" / ".part-0000002.jsonl.1.a.tmp").write_text("half")
    with open(tmp_path / "out" / "predictions" / "part-0000000.jsonl", "a") as file:
        file.write("not as it was written")
    done = 100
    with monkeypatch.context() as patch:
        patch.setattr(piece_module, "example_of", count)
        predict(model, [path], tmp_path / "out", piece_rows=10)
    assert done == 100 + 40
    assert "finished already: 1" in capsys.readouterr().out
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not list(tmp_path.rglob("*.tmp"))


def test_other_input_options_or_models_are_refused(
    tmp_path: Path, models: dict[str, str], texts: list[str], sample_tokenizer_dir: str
):
    path, out = write_texts(tmp_path / "in" / "a.jsonl", texts[:3]), tmp_path / "out"
    model = shutil.copytree(models["classification"], tmp_path / "model")
    before = predict(str(model), [path.parent], out)
    with pytest.raises(ConfigError, match="max_length was None and is 20"):
        predict(str(model), [path.parent], out, max_length=20)
    write_texts(path.parent / "b.jsonl", texts[:3])
    with pytest.raises(ConfigError, match=r"input .*b\.jsonl was not among them"):
        predict(str(model), [path.parent], out)
    assert predict(str(model), [path], out) == before
    write_texts(path, texts[:4])
    with pytest.raises(ConfigError, match=r"input .*a\.jsonl has changed"):
        predict(str(model), [path], out)
    torch.manual_seed(5)
    other = PmlmForSequenceClassification.from_pretrained(model)
    torch.nn.init.normal_(other.classifier.weight)
    other.save_pretrained(model)
    with pytest.raises(ConfigError, match="otherwise: the model's weights or tokenizer are others"):
        predict(str(model), [path], out)


def test_folders_that_cannot_predict_are_refused(
    tmp_path: Path, models: dict[str, str], texts: list[str], sample_tokenizer_dir: str
):
    path = write_texts(tmp_path / "in.jsonl", texts[:3])
    pretrained = make_checkpoint(tmp_path / "final", sample_tokenizer_dir)
    with pytest.raises(ConfigError, match=r"was not fine-tuned: .*PmlmForPreTraining.*pmlm finetune"):
        predict(pretrained, [path], tmp_path / "out")
    shutil.copy(Path(models["classification"]) / "pmlm_task.json", pretrained)
    with pytest.raises(
        ConfigError, match=r"PmlmForSequenceClassification does, but config\.json names PmlmForPreTraining"
    ):
        predict(pretrained, [path], tmp_path / "out")
    with pytest.raises(ConfigError, match="no checkpoint folder"):
        predict(str(tmp_path / "nowhere"), [path], tmp_path / "out")
    broken = shutil.copytree(models["classification"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        predict(str(broken), [path], tmp_path / "out")


def test_a_folder_that_an_earlier_version_began_without_beams_goes_on(tmp_path: Path, models: dict[str, str]):
    """Its plan says nothing of what is for beams, or what the model's folder says; with beams it decides."""
    model, path = models["generation"], tmp_path / "in.jsonl"
    path.write_text(json.dumps({"src": "a man"}) + "\n")
    for beams in (1, 2):
        out = tmp_path / f"{beams}"
        before = predict(model, [path], out, num_beams=beams)
        plan = json.loads((out / "plan.json").read_text())
        search = plan["identity"]["generation"]
        for name in ("length_penalty", "early_stopping"):
            search.pop(name, None)
        for told in ({}, {"length_penalty": 0.7}, {"length_penalty": 1.0, "early_stopping": False}):
            plan["identity"]["generation"] = {**search, **told}
            (out / "plan.json").write_text(json.dumps(plan))
            if beams == 1:
                assert predict(model, [path], out, num_beams=1) == before
            else:
                with pytest.raises(ConfigError, match=r"early_stopping was (None|False) and is 'never'"):
                    predict(model, [path], out, num_beams=2)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("classification", {"num_beams": 2}, "num_beams has no meaning for a model of classification"),
        ("classification", {"question_column": "q"}, "question_column has no meaning"),
        ("generation", {"text_column": "text"}, "text_column has no meaning for a model of generation"),
        ("generation", {"top_k": 5}, "top_k is for sampling"),
        ("generation", {"seed": 0}, "seed is for sampling"),
        ("classification", {"seed": 1}, "seed has no meaning for a model of classification"),
        ("regression", {"null_threshold": 0.5}, "null_threshold is for questions that may have no answer"),
        ("generation", {"num_beams": 1, "length_penalty": 1.0}, "length_penalty is for a search with beams"),
        ("generation", {"max_target_length": 30}, "need 70 positions and the model in .* has 64"),
        ("generation", {"min_target_length": 8}, "leaves no room"),
        ("classification", {"max_length": 65}, "need 65 positions"),
        ("classification", {"max_length": 4}, "max_length must be 5 or more"),
        ("classification", {"batch_size": 0}, "batch_size must be 1 or more"),
        ("generation", {"top_p": 1.5}, "top_p must be"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, models: dict[str, str], kind: str, options: dict[str, Any], message: str
):
    path = write_texts(tmp_path / "in.jsonl", ["a text"])
    with pytest.raises(ConfigError, match=message):
        predict(models[kind], [path], tmp_path / "out", **options)
    assert not (tmp_path / "out" / "plan.json").exists()


def test_empty_input_and_output_beside_input(tmp_path: Path, models: dict[str, str]):
    (tmp_path / "in.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"in\.jsonl: there is not a row to predict"):
        predict(models["classification"], [tmp_path / "in.jsonl"], tmp_path / "out")
    with pytest.raises(ConfigError, match="keep input and output apart"):
        predict(models["classification"], [tmp_path / "in.jsonl"], tmp_path)


def test_dry_run_makes_nothing(tmp_path: Path, models: dict[str, str], texts: list[str], capsys: Any):
    path = write_texts(tmp_path / "in.jsonl", texts)
    out = tmp_path / "out"
    dry_run(PredictConfig(model=models["generation"], inputs=[str(path)], output_dir=str(out), piece_rows=20))
    printed = capsys.readouterr().out
    assert "50 rows in 1 file," in printed
    assert "in 3 pieces" in printed
    assert "MB a worker" in printed
    assert "in this process" in printed
    assert "0.0" not in printed
    assert not out.exists()
    predict(models["classification"], [path], out)
    capsys.readouterr()
    dry_run(PredictConfig(model=models["classification"], inputs=[str(path)], output_dir=str(out), precision="fp32"))
    printed = capsys.readouterr().out
    assert printed.endswith(f"every piece in {out} is finished: nothing is left to predict\n")
