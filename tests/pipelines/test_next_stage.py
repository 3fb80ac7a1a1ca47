"""The command that a stage proposes: pasted, it goes on with what was done, and with nothing else."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from pipelines import options
from pipelines.cli import COMMANDS, main
from pipelines.inner_command import class_of
from pipelines.output_folder import beside
from pipelines.preprocess.run import leads_to as after_blocks
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.run import _to_compare
from pipelines.tokenizer.run import leads_to as after_tokenizer

RECIPE = """
tokenizer: {inputs: [text/*.jsonl], input_format: jsonl, output_dir: out/tokenizer, vocab_size: 500}
preprocess: {inputs: [more/*.jsonl], input_format: jsonl, tokenizer: out/tokenizer, output_dir: out/blocks, views: 2}
pretrain: {data_dir: out/blocks, output_dir: out/runs, preset: mini, max_steps: 7}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    return "recipe.yaml"


def read(*words: str) -> options.Request:
    return options.parse(words[0], class_of(words[0]), "", words[1:], tuple(COMMANDS))


def pasted(command: str) -> Any:
    return read(*shlex.split(command.partition(" (")[0])[1:]).config


def test_a_recipe_leads_on_through_its_sections(recipe):
    request = read("tokenizer", "--config", recipe)
    assert after_tokenizer(request.config, recipe) == f"pmlm preprocess --config {recipe}"
    request = read("preprocess", "--config", recipe)
    assert after_blocks(request.config, recipe) == f"pmlm pretrain --config {recipe}"


def test_what_the_command_line_said_otherwise_goes_along(recipe):
    request = read(
        "tokenizer", "--config", recipe, "--inputs", "a b.jsonl", "c.jsonl", "--output_dir", "other/tokenizer"
    )
    blocks = pasted(after_tokenizer(request.config, recipe))
    assert blocks.inputs == ["a b.jsonl", "c.jsonl"]
    assert (blocks.tokenizer, blocks.output_dir, blocks.views) == ("other/tokenizer", "other/blocks", 2)
    request = read("preprocess", "--config", recipe, "--output_dir", "other/blocks", "--max_length", "64")
    run = pasted(after_blocks(request.config, recipe))
    assert (run.data_dir, run.output_dir, run.max_steps) == ("other/blocks", "other/pretrain", 7)


def test_without_a_recipe_all_is_said(recipe):
    given = [
        "--inputs",
        "text/*.jsonl",
        "--input_format",
        "jsonl",
        "--text_field",
        "body",
        "--max_document_bytes",
        "99",
    ]
    request = read("tokenizer", *given, "--output_dir", "mine/tokenizer")
    blocks = pasted(after_tokenizer(request.config, None))
    assert (blocks.inputs, blocks.input_format, blocks.text_field) == (["text/*.jsonl"], "jsonl", "body")
    assert (blocks.max_document_bytes, blocks.tokenizer, blocks.output_dir) == (99, "mine/tokenizer", "mine/blocks")
    # A trial has a folder of its own: `final` goes on leading to what was trained in earnest.
    assert pasted(after_blocks(blocks, None)).output_dir == "mine/trial"
    Path(recipe).write_text(RECIPE.partition("pretrain:")[0])
    request = read("preprocess", "--config", recipe)
    assert pasted(after_blocks(request.config, recipe)).output_dir == "out/trial"


def tokenizer_made(recipe: str, sample_texts: list[str]) -> object:
    """Exit code of the stage."""
    Path("text").mkdir()
    Path("text/a.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in sample_texts if '"' not in text))
    with pytest.raises(SystemExit) as done:
        main(["tokenizer", "--config", recipe, "--vocab_size", "100"])
    return done.value.code


def test_the_command_prints_it(recipe, sample_texts, capsys):
    assert tokenizer_made(recipe, sample_texts) == 0
    assert capsys.readouterr().out.endswith(f"next: pmlm preprocess --config {recipe}\n")


@pytest.mark.parametrize(("right", "wrong"), [("views: 2", "viewz: 2"), ("views: 2", "views: many")])
def test_what_is_wrong_with_the_next_section_does_not_fail_the_stage(recipe, right, wrong, sample_texts, capsys):
    Path(recipe).write_text(RECIPE.replace(right, wrong))
    assert tokenizer_made(recipe, sample_texts) == 0
    shown = capsys.readouterr()
    assert not shown.err
    assert "next:" not in shown.out
    assert "this stage is done, but no command can be proposed" in shown.out
    assert wrong.partition(":")[0] in shown.out


def test_a_recipe_that_is_gone_by_the_end_does_not_fail_the_stage(recipe, sample_texts, monkeypatch, capsys):
    real = options.parse

    def parse_once(*given: Any) -> options.Request:
        request = real(*given)
        Path(recipe).unlink()
        return request

    monkeypatch.setattr(options, "parse", parse_once)
    assert tokenizer_made(recipe, sample_texts) == 0
    assert "recipe.yaml cannot be read" in capsys.readouterr().out


def test_the_recipes_values_stand_where_this_stage_left_them_out(recipe):
    Path(recipe).write_text(
        "tokenizer: {inputs: [text/*.jsonl], output_dir: out/tokenizer}\n"
        "preprocess: {inputs: [text/*.jsonl], input_format: jsonl, max_document_bytes: 1000000, "
        "tokenizer: out/tokenizer, output_dir: out/blocks}\n"
    )
    request = read("tokenizer", "--config", recipe)
    assert after_tokenizer(request.config, recipe) == f"pmlm preprocess --config {recipe}"
    request = read("tokenizer", "--config", recipe, "--max_document_bytes", "77")
    assert after_tokenizer(request.config, recipe) == f"pmlm preprocess --config {recipe} --max_document_bytes 77"


@pytest.mark.parametrize("spelled", ["out/blocks/", "./out/blocks", "out//blocks"])
def test_a_folder_is_the_same_however_it_is_spelled(recipe, spelled):
    Path(recipe).write_text(RECIPE.replace("data_dir: out/blocks", f"data_dir: {spelled}"))
    request = read("preprocess", "--config", recipe, "--output_dir", "./out/blocks/")
    assert after_blocks(request.config, recipe) == f"pmlm pretrain --config {recipe}"


@pytest.mark.parametrize("local", ["output_dir: out/runs, ", ""])
def test_no_output_dir_in_a_store_beside_an_upload_dir(recipe, local):
    uploads = f"{local}upload_dir: 's3://b/copies', "
    Path(recipe).write_text(RECIPE.replace("output_dir: out/runs, ", uploads))
    request = read("preprocess", "--config", recipe, "--output_dir", "s3://b/blocks")
    run = pasted(after_blocks(request.config, recipe))  # which validates it
    assert (run.data_dir, run.output_dir) == ("s3://b/blocks", "out/runs" if local else "outputs/pretrain")


def test_an_empty_section_is_none(recipe):
    Path(recipe).write_text(RECIPE.partition("pretrain:")[0] + "pretrain:\n")
    request = read("preprocess", "--config", recipe)
    assert "--preset tiny" in after_blocks(request.config, recipe)


def test_trials_are_compared_where_they_were_sent(monkeypatch):
    def said(**more: Any) -> str:
        return _to_compare(Path("out/mine"), SweepConfig(["rte"], "m", ["d"], **more))

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert said() == "pmlm compare --sweep mine"
    assert said(tracking_uri="sqlite:///x.db") == "pmlm compare --sweep mine --tracking_uri sqlite:///x.db"
    assert said(tracking_uri="none") == "pmlm compare --folders out/mine"
    secret = said(tracking_uri="postgresql://me:hush@db/mlflow")
    assert secret.startswith("pmlm compare --sweep mine (with MLFLOW_TRACKING_URI set")
    assert "hush" not in secret


def test_a_folder_beside_one_in_a_store_keeps_its_bucket_and_options():
    for root in ("s3://b", "s3://b/", "s3://b/blocks"):
        assert beside(root, "runs") == "s3://b/runs"
    assert beside("s3://b?endpoint_override=a", "runs") == "s3://b/runs?endpoint_override=a"
    assert beside("s3://b/blocks/?endpoint_override=a", "runs") == "s3://b/runs?endpoint_override=a"
