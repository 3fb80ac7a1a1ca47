"""The command itself: answers at once, knows every stage, ends with the right exit code."""

import importlib
import subprocess
import sys

import pytest
from finetuning_data import make_checkpoint

from pipelines.cli import COMMANDS, main
from pipelines.console import next_command, say


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return caught.value.code


def test_overview_names_every_command(capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_lists_every_option_with_its_meaning(command, capsys):
    assert run(command, "--help") == 0
    printed = capsys.readouterr().out
    assert "--print_config" in printed
    assert "default" in printed
    assert "(type:" in printed


def test_unknown_command_is_refused(capsys):
    assert run("pretrian") == 2
    assert "unknown command 'pretrian'; did you mean 'pretrain'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokenizer", "--inputs", "nowhere", "--output_dir", "out"],
        ["preprocess", "--inputs", "nowhere", "--tokenizer", "nowhere", "--output_dir", "out"],
        ["preprocess", "--inputs", "text.jsonl", "--tokenizer", "nowhere", "--output_dir", "out"],
        ["pretrain", "--data_dir", "nowhere", "--output_dir", "out", "--preset", "tiny"],
        ["finetune", "--task", "rte", "--model", "nowhere", "--data_dir", "."],
        ["finetune", "--task", "rte", "--model", "model", "--data_dir", "nowhere"],
        ["finetune", "--task", "rte", "--model", "model", "--data_dir", "."],
        ["predict", "--model", "nowhere", "--inputs", "text.jsonl", "--output_dir", "out"],
        ["fill", "--model", "nowhere", "a [MASK]"],
        ["fill", "--model", ".", "a [MASK]"],
        ["plan", "--recipe", "nowhere.yaml"],
        ["compare", "--folders", "nowhere"],
        ["pretrain", "--max_steps", "many"],
        ["pretrain", "--data_dir", "nowhere", "--output_dir", "out", "--preset", "tiny", "--max_steps", "0"],
    ],
)
def test_what_is_wrong_with_a_command_is_2_whenever_it_is_found(
    arguments, tmp_path, sample_tokenizer_dir, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jsonl").write_text('{"body": "some text"}\n')
    if "model" in arguments:
        make_checkpoint(tmp_path / "model", sample_tokenizer_dir)
    assert run(*arguments) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tokenizer", "--inputs", "texts/a.txt", "--output_dir", "out"], "give --input_format text_lines"),
        (["preprocess", "--inputs", "texts/a.md", "--tokenizer", "model", "--output_dir", "out"], "its name does not"),
        (["preprocess", "--inputs", "more", "--tokenizer", "model", "--output_dir", "out", "--strict"], "(--strict)"),
        (
            ["finetune", "--task", "classification", "--model", "model", "--data_dir", "texts", "--train_file", "a.md"],
            "form '.md' is not known",
        ),
    ],
)
def test_a_name_that_does_not_tell_its_form_is_2(arguments, said, tmp_path, sample_tokenizer_dir, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "model", sample_tokenizer_dir)
    for name in ("texts/a.txt", "texts/a.md", "more/a.md", "more/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "some text"}\n')
    assert run(*arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_is_wrong_with_what_is_there_is_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jsonl").write_text('{"body": "some text"}\n')
    assert run("tokenizer", "--inputs", "text.jsonl", "--output_dir", "out") == 1
    assert "fields here: body" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text("{")
    assert run("pretrain", "--data_dir", ".", "--output_dir", "out", "--preset", "tiny", "--tracking_uri", "none") == 1
    assert "manifest.json" in capsys.readouterr().err


def test_the_help_says_what_exit_codes_mean(capsys):
    run("--help")
    assert "2 the command line or the recipe is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["pretrain", "--help"],
        ["preprocess", "--help"],
        ["fill", "--model", "nowhere", "a [MASK]"],
        ["convert", "--weights", "nowhere.bin", "--output_dir", "out"],
        ["finetune", "--task", "rte", "--model", "nowhere", "--data_dir", "."],
        ["finetune", "--task", "rte", "--model", ".", "--data_dir", "nowhere"],
        ["sweep", "--benchmark", "rtt", "--model", ".", "--data_dir", "."],
        ["sweep", "--benchmark", "nowhere.py", "--model", ".", "--data_dir", "."],
        ["sweep", "--benchmark", "rte", "--model", "nowhere", "--data_dir", "rte=."],
        ["sweep", "--benchmark", "rte", "--model", ".", "--data_dir", "rte=nowhere"],
        ["predict", "--model", "nowhere", "--inputs", "text.jsonl", "--output_dir", "out"],
        ["predict", "--model", ".", "--inputs", "nowhere/*.jsonl", "--output_dir", "out"],
    ],
)
def test_help_and_names_of_what_is_not_there_import_nothing_heavy(arguments):
    heavy = {"torch", "ray", "mlflow", "transformers", "numba"} | ({"pyarrow"} if "--help" in arguments else set())
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as done: code = done.code\n"
        f"heavy = {heavy} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr


def test_trouble_with_the_disk_is_a_sentence(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a line\n")
    (tmp_path / "file").write_text("")
    code = run(
        "tokenizer", "--inputs", str(tmp_path / "text.txt"), "--input_format", "text_lines",
        "--output_dir", str(tmp_path / "file" / "below"), "--vocab_size", "20",
    )  # fmt: skip
    assert code in (1, 2)
    assert "error: " in capsys.readouterr().err


def test_words_between_colons_stay_as_they_are(capsys):
    say("outputs/:100:/blocks")
    next_command("pmlm fill --model :100:")
    assert capsys.readouterr().out == "outputs/:100:/blocks\nnext: pmlm fill --model :100:\n"


def test_help_of_finetune_shows_the_recipes_in_numbers(capsys):
    assert run("finetune", "--help") == 0
    shown = capsys.readouterr().out
    table = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if len(line.split()) == 7}
    assert table["option"] == ["GLUE", "SQuAD", "cnn_dailymail", "xsum", "squad_qg", "seq2seq"]
    assert table["batch_size"] == ["32", "32", "64", "64", "48", "64"]
    assert table["learning_rate"][:2] == ["2e-05", "2e-05"]
    assert table["length_penalty"] == ["-", "-", "0.7", "0.6", "1.3", "0.7"]


def test_help_says_how_lists_are_given_and_what_there_must_be(capsys):
    assert run("tokenizer", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "usage: pmlm tokenizer --inputs VALUE [VALUE ...] --output_dir OUTPUT_DIR [--input_format" in said
    assert "plain, .gz or .zst. (required, type: list[str])" in said
    assert "ITEM" not in said


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("compare", "doctor", "submit")])
def test_what_help_calls_required_is_refused_when_it_lacks(name, capsys):
    config = getattr(importlib.import_module(f"pipelines.{name}.config"), COMMANDS[name].config_class)
    assert run(name, "--help") == 0
    assert "(required" in capsys.readouterr().out
    assert run(name) == 2
    said = capsys.readouterr().err
    assert any(f"--{each}" in said for each in config.needs) if hasattr(config, "needs") else "--" in said
