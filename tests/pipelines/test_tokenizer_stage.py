"""`pmlm tokenizer`: the same bytes whoever draws the sample, what it says, what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.tokenizer import draw as draw_module
from pipelines.tokenizer.config import TokenizerConfig
from pipelines.tokenizer.draw import draw
from pipelines.tokenizer.run import MANIFEST, dry_run, run
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import plan_pieces
from pmlm_core.corpus.sampling import share_out
from pmlm_core.corpus.sources import list_sources
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError


@pytest.fixture
def corpus(sample_texts: list[str], tmp_path: Path) -> str:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(3):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in sample_texts[i::3])
        (folder / f"{i}.jsonl").write_text(lines, encoding="utf-8")
    return str(folder)


@pytest.fixture
def config(corpus: str, tmp_path: Path) -> TokenizerConfig:
    return TokenizerConfig(
        inputs=[corpus], output_dir=str(tmp_path / "made"), vocab_size=500, sample_bytes=60_000, seed=3
    )


def model(config: TokenizerConfig) -> bytes:
    return Path(config.output_dir, "tokenizer.model").read_bytes()


def test_it_makes_a_tokenizer_and_says_so(config, capsys):
    run(config)
    said = capsys.readouterr().out
    tokenizer = TextTokenizer.load(config.output_dir)
    assert tokenizer.vocab_size == 500
    assert f"made cased unigram tokenizer of 500 pieces: {config.output_dir}" in said
    manifest = json.loads(Path(config.output_dir, MANIFEST).read_text())
    assert manifest["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert manifest["config"]["seed"] == 3
    assert 60_000 <= manifest["counts"]["sample_bytes"] < 60_000 + 3 * 8000
    assert manifest["counts"]["documents"] == 239
    assert [Path(source["uri"]).name for source in manifest["inputs"]] == ["0.jsonl", "1.jsonl", "2.jsonl"]


def test_equal_options_give_equal_bytes_and_the_seed_matters(config, tmp_path):
    again, other = (replace(config, output_dir=str(tmp_path / name)) for name in ("again", "other"))
    run(config)
    run(again)
    run(replace(other, seed=4))
    assert model(config) == model(again)
    assert model(config) != model(other)


def test_ray_draws_what_a_plain_loop_draws(ray_session, corpus):
    fmt = InputFormat("jsonl")
    pieces = plan_pieces(list_sources([corpus], fmt), 1 << 14)
    shares = share_out(pieces, 50_000, seed=0)
    assert len(shares) > 5
    plain = draw(shares, fmt, seed=0, num_workers=None)
    assert draw(shares, fmt, seed=0, num_workers=1, small=0) == plain
    assert draw(shares, fmt, seed=0, num_workers=2, small=0) == plain


def test_bad_input_is_left_out_aloud(config, corpus, capsys):
    with open(f"{corpus}/1.jsonl", "a") as file:
        file.write("broken\n")
    run(config)
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: 1 items are left out" in said
    assert f"{corpus}/1.jsonl, row 81" in said
    assert json.loads(Path(config.output_dir, MANIFEST).read_text())["rejects"] == {"invalid_json": 1}


def test_a_file_that_vanishes_is_named(config, monkeypatch, corpus):
    plan = draw_module.sample_piece

    def vanish(*arguments):
        Path(corpus, "1.jsonl").unlink(missing_ok=True)
        return plan(*arguments)

    monkeypatch.setattr(draw_module, "sample_piece", vanish)
    with pytest.raises(DataError, match=r"1\.jsonl.*run the same command"):
        run(config)
    assert not Path(config.output_dir).exists()


def test_nothing_to_train_on_is_said(config, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no such file"):
        run(replace(config, inputs=[str(tmp_path / "none")]))
    with pytest.raises(DataError, match=r"no document in the input \(1 file\)"):
        run(replace(config, inputs=[str(tmp_path / "empty.jsonl")]))
    assert not Path(config.output_dir).exists()


def test_a_wrong_field_is_answered_with_the_option_and_the_fields_there_are(config, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "some text"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, row 1: .*no field 'text'; fields here: body; --text_field says"):
        run(replace(config, inputs=[str(tmp_path / "a.jsonl")]))


def test_replacing_another_tokenizer_is_said(config, capsys):
    run(config)
    run(config)
    assert "held another tokenizer" not in capsys.readouterr().out
    run(replace(config, cased=False))
    assert "held another tokenizer" in capsys.readouterr().out
    assert "the time" in TextTokenizer.load(config.output_dir).decode(
        TextTokenizer.load(config.output_dir).encode(["The Time"])[0]
    )


@pytest.mark.parametrize("act", [run, dry_run])
@pytest.mark.parametrize(("inside", "message"), [("", "is a file"), ("x/y", "is not a folder")])
def test_an_output_that_cannot_be_a_folder_is_refused_before_training(
    config, tmp_path, monkeypatch, act, inside, message
):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("pipelines.tokenizer.run.train", lambda *a, **k: pytest.fail("trained for nothing"))
    with pytest.raises(ConfigError, match=message):
        act(replace(config, output_dir=str(tmp_path / "file" / inside)))


def test_a_dry_run_writes_nothing(config, capsys):
    dry_run(config)
    assert "3 files" in capsys.readouterr().out
    assert not Path(config.output_dir).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "needs --inputs"),
        ({"inputs": [" "]}, "empty name"),
        ({"output_dir": ""}, "needs --output_dir"),
        ({"vocab_size": 3}, "vocab_size must be from 16 to 16,777,216, not 3"),
        ({"vocab_size": 200, "byte_fallback": True}, "vocab_size must be from 300 to"),
        ({"sample_bytes": 0}, "sample_bytes must be from 1,024 to"),
        ({"num_workers": 0}, "num_workers must be from 1 to"),
        ({"character_coverage": 0.5}, "must be from 0.98 to 1, not 0.5"),
        ({"text_field": ""}, "text_field is empty"),
    ],
)
def test_impossible_options_are_refused(config, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(config, **change).validate()


def test_the_command_line_reaches_it(config, capsys):
    arguments = ["tokenizer", "--inputs", *config.inputs, "--output_dir", config.output_dir, "--vocab_size", "90000"]
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "cannot make 90000 unigram pieces" in capsys.readouterr().err
