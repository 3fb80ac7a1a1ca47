"""The command itself: answers at once, knows every stage, ends with the right exit code."""

import subprocess
import sys

import pytest

from pipelines.cli import COMMANDS, main


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


@pytest.mark.parametrize("arguments", [["--help"], ["pretrain", "--help"], ["preprocess", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'transformers', 'numba', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_trouble_with_the_disk_is_a_sentence(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a line\n")
    (tmp_path / "file").write_text("")
    code = run(
        "tokenizer", "--inputs", str(tmp_path / "text.txt"), "--input_format", "text_lines",
        "--output_dir", str(tmp_path / "file" / "below"), "--vocab_size", "20",
    )  # fmt: skip
    assert code in (1, 2)
    assert "error: " in capsys.readouterr().err


def test_help_of_finetune_shows_the_recipes_in_numbers(capsys):
    assert run("finetune", "--help") == 0
    shown = capsys.readouterr().out
    table = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if len(line.split()) == 7}
    assert table["option"] == ["GLUE", "SQuAD", "cnn_dailymail", "xsum", "squad_qg", "seq2seq"]
    assert table["batch_size"] == ["32", "32", "64", "64", "48", "64"]
    assert table["learning_rate"][:2] == ["2e-05", "2e-05"]
    assert table["length_penalty"] == ["-", "-", "0.7", "0.6", "1.3", "0.7"]
