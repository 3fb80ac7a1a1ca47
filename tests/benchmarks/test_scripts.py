"""The scripts of benchmarks/ can be imported and told what to do, and each runs to its end on a tiny case.

What they measure is not looked at, only that there are figures: they must not rot unseen between two measurements.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from pmlm_core.corpus.manifest import Manifest
from pmlm_core.model import PmlmForPreTraining
from tests.pipelines.finetuning_data import make_checkpoint, write_questions
from tests.pipelines.tiny_blocks import make_blocks

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))

# All in one process, which imports torch, transformers and Ray once: name -> what went wrong, in words.
IMPORT_ALL = """
import contextlib, doctest, importlib, io, json, sys, traceback

def tried(name):
    module = importlib.import_module(name)
    failed = doctest.testmod(module).failed
    if failed:
        return f"{failed} examples of its docstrings fail"
    if hasattr(module, "main"):
        sys.argv = [name, "--help"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            try:
                module.main()
            except SystemExit as end:
                if end.code:
                    return f"--help ends with {end.code}"
        if (module.__doc__ or "?").splitlines()[0] not in said.getvalue():
            return "--help does not say what it is"
    return ""

outcomes = {}
for name in sys.argv[1:]:
    try:
        outcomes[name] = tried(name)
    except ModuleNotFoundError as error:
        outcomes[name] = f"not installed: {error.name}"
    except BaseException:
        outcomes[name] = traceback.format_exc()
print(json.dumps(outcomes))
"""


def environment(*paths: Path) -> dict[str, str]:
    """With wide terminals, in which no cell of a table is broken."""
    found = os.pathsep.join([*map(str, paths), str(ROOT), *sys.path])
    return {**os.environ, "PYTHONPATH": found, "COLUMNS": "250", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *SCRIPTS],
        cwd=ROOT,
        env=environment(ROOT / "benchmarks"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_imported_and_says_what_it_is(script, outcomes):
    if re.fullmatch("not installed: (datasets|accelerate)", outcomes[script]):
        pytest.skip(f"{outcomes[script]}, of the extra 'bench'")
    assert not outcomes[script]


# --- tiny runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sample_texts: list[str], sample_tokenizer_dir: str) -> Path:
    """What scripts read: a tokenizer, text, blocks, an untrained checkpoint, files of two tasks."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tokenizer").symlink_to(sample_tokenizer_dir)
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sample_texts))
    make_blocks(folder / "blocks", sample_texts, sample_tokenizer_dir)
    masked = {"mask_prob": 0.15, "block_prob": 0.4, "min_block": 2, "max_block": 6}
    replace(Manifest.load(str(folder / "blocks")), config=masked).save(str(folder / "blocks"))
    make_checkpoint(folder / "model", sample_tokenizer_dir, max_position_embeddings=128)
    write_questions(folder / "squad", rows=8)
    (folder / "glue" / "RTE").mkdir(parents=True)
    for split in ("train", "dev"):
        lines = ["sentence1\tsentence2\tlabel"]
        for number in range(8):
            label = ("entailment", "not_entailment")[number % 2]
            lines.append(f"The captain saw ship {number}.\tThere was {number * 'a very '}old ship.\t{label}")
        (folder / "glue" / "RTE" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Callable[[str, str], str]:
    """Runs a script with options, in which {made} and {to} stand for folders; returns what it printed."""

    def run(script: str, options: str) -> str:
        words = [word.format(made=made, to=tmp_path) for word in options.split()]
        done = subprocess.run(
            [sys.executable, f"benchmarks/{script}.py", *words],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def rows_of(output: str) -> dict[str, list[str]]:
    """Cells of the tables that were printed, rich's or Markdown's, behind the name of their row."""
    lines = [re.split(r"\s*[│|]\s*", line.strip()) for line in output.splitlines()]
    return {cells[1]: cells[2:-1] for cells in lines if len(cells) > 3}


def check_figures(output: str, *names: str) -> None:
    """Every row named is there, and has figures."""
    rows = rows_of(output)
    for name in names:
        found = [row for row in rows if name in row]
        assert found, f"no row '{name}' in\n{output}"
        for row in found:
            assert any(re.search(r"\d", cell) for cell in rows[row]), output
            assert not any(re.search(r"\b(nan|inf)\b", cell) for cell in rows[row]), output


TINY = "--preset tiny --vocab 200"
PREPROCESS = "--input {made}/text.jsonl --tokenizer {made}/tokenizer --max_length 64 --views 1 --workers 1"
RUNS = {
    "attention": (
        "--rows 1 --context 32 --heads 2 --width 16 --dtype float32 --rounds 1",
        ["plain", "sdpa"],
    ),
    "pretrain_step": (
        f"{TINY} --rows 2 --length 64 --precision fp32 --rounds 1",
        ["pmlm AE+PAR", "pmlm AE", "BERT", "BERT, slots"],
    ),
    "loading": (f"{TINY} --batch 2 --length 64 --steps 2 --precision fp32", ["training step", "prepared", "waited"]),
    "masking": ("--megabytes 1.5 --views 1", ["raw sentencepiece", "pack + mask + write"]),
    "tokenizer": (
        "--text {made}/text.jsonl --tokenizer {made}/tokenizer --megabytes 0.05",
        ["lists", "arrays", "TextTokenizer.encode"],
    ),
    "preprocess": (
        f"{PREPROCESS} --rounds 1 --turns 1",
        ["sentencepiece alone", "reading alone", "whole preprocessing", "plain processes", "Ray"],
    ),
    "start": ("--rows 1024 2048 --rows_per_shard 512 --rounds 1", ["1,024", "2,048"]),
    "ray_train": (
        "--data_dir {made}/blocks --batch_size 4 --workers 1 --steps 20 --rounds 1",
        ["Ray Train", "torchrun"],
    ),
    "sweep_overhead": (
        "--model {made}/model --trials 3 --rows 16 --output_dir {to}/out",
        ["bare loop", "Tune", "Tune and MLflow"],
    ),
    "cost_model": (
        "--blocks {made}/blocks --checkpoint {made}/model --rounds 1",
        ["FLOP of a step", "bytes a row", "checkpoint", "sent a step by each of 3", "step of small"],
    ),
    "remote_blocks": ("--shards 2 --rows 512 --batch 32", ["whole shards", "record batches, ahead, bounded"]),
    "finetune": (
        "--model {made}/model --data {made} --output_dir {to}/out --jobs 1 --only RTE "
        "--set max_length=64 num_train_epochs=1 tracking_uri=none",
        ["RTE"],
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("script", RUNS)
def test_a_script_runs_and_shows_figures(script, run):
    options, names = RUNS[script]
    check_figures(run(script, options), *names)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate, of the extra 'bench', is not installed")
def test_a_fine_tuning_epoch_beside_the_trainer(run):
    options = "--tokenizer {made}/tokenizer --glue {made}/glue --squad {made}/squad --preset tiny --precision fp32"
    output = run("finetune_epoch", f"{options} --batch_size 2 --rows 6 --rounds 1")
    check_figures(output, "pmlm", "Trainer", "Trainer, group_by_length")
    assert "rte: 6 rows" in output
    assert "squad1.1: 6 rows" in output


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("datasets") is None, reason="datasets, of the extra 'bench', is not installed")
def test_preprocessing_beside_datasets(run):
    check_figures(
        run("preprocess", f"{PREPROCESS} --rounds 0 --turns 1 --peer"), "plain processes", "Ray", "datasets.map"
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_kernels_between_the_products_in_the_interpreter(run, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    output = run("between", "--rows 8 --slots 4 --width 32 --inner 64 --words 100 --rounds 1")
    check_figures(output, "own kernels", "torch", "torch.compile")
    assert output.count("beside torch") >= 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_decoding_gives_the_tokens_of_the_kits_scheme(run):
    output = run("decoding", f"{TINY} --rows 2 --source 16 --target 4 --beams 2 --repeats 1")
    check_figures(output, "pmlm", "the kit's scheme", "BART 2 + 2", "BART 1 + 1")
    assert "all of them: 100%" in output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_pass_has_the_losses_of_many(run):
    output = run("one_pass", f"{TINY} --rows 1 --length 64 --rounds 1")
    check_figures(output, "AE and PAR in one pass", "PAR, a cloze pass per step")
    once, many = (float(cells[1]) for cells in rows_of(output).values())
    assert once == pytest.approx(many, rel=1e-4)


@pytest.mark.slow
def test_held_out_losses_of_a_checkpoint(run):
    *_, line = run("held_out", "--data_dir {made}/blocks --rows 8 --batch_size 4 {made}/model").splitlines()
    name, *figures = line.split()
    assert name == "model"
    assert len(figures) == 4
    assert all(re.fullmatch(r"\d+\.\d+%?", figure) for figure in figures), line


@pytest.mark.slow
def test_our_model_with_berts_weights_is_bert(run, tmp_path):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(20_000))]
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words) + "\n")
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    output = run("control", "--bert {to}/bert --to {to}/ours")
    assert float(output.rpartition(": ")[2]) < 1e-4
    PmlmForPreTraining.from_pretrained(tmp_path / "ours")
