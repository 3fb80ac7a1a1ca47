"""`pmlm convert`: files of a published checkpoint become a folder that fills gaps and loads by Auto classes."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer

import pmlm_core.model.auto  # noqa: F401
from pipelines.cli import main
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.start import start_of
from pmlm_core.errors import NotThereError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", ".", "##s", "a", "dog"]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """`tiny-uncased.bin` with its configuration and vocabulary, as the authors name them."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save(BertForMaskedLM(config).state_dict(), folder / "tiny-uncased.bin")
    (folder / "tiny-uncased-config.json").write_text(json.dumps(config.to_dict()))
    (folder / "tiny-uncased-vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def pmlm(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_a_published_checkpoint_fills_gaps_and_loads_by_auto_classes(published, tmp_path, capsys):
    out = tmp_path / "made here"
    assert pmlm("convert", "--weights", published / "tiny-uncased.bin", "--output_dir", out) == 0
    said = capsys.readouterr().out
    assert "1 layers x 16, 2 heads, 40 positions, 14 tokens, no relative bias" in " ".join(said.split())
    assert f"pmlm fill --model '{out}'" in said
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert tokenizer("The cats")["input_ids"] == [2, 5, 6, 11, 3]
    assert model.config.pseudo_token_id == model.config.mask_token_id == 4
    assert pmlm("fill", "--model", out, "The cat [MASK] on the mat.") == 0
    assert "[MASK] 1" in capsys.readouterr().out


def test_a_dry_run_writes_nothing_and_a_model_that_is_there_is_not_replaced(published, tmp_path, capsys):
    out = tmp_path / "out"
    convert = ("convert", "--weights", published / "tiny-uncased.bin", "--output_dir", out)
    assert pmlm(*convert, "--dry_run") == 0
    assert not out.exists()
    assert pmlm(*convert) == 0
    assert pmlm(*convert) == 2
    assert "holds a model already" in capsys.readouterr().err


@pytest.mark.parametrize("model_type", ["roberta", "electra"])
def test_a_model_that_only_shares_berts_names_is_refused(published, tmp_path, capsys, model_type):
    config = published / "tiny-uncased-config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": model_type}))
    assert pmlm("convert", "--weights", published / "tiny-uncased.bin", "--output_dir", tmp_path / "out") != 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"describes a '{model_type}'" in said
    assert "pmlm convert takes BERT and UniLMv2" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model_type", [None, "unilm"])
def test_unilms_configurations_name_no_model_type_or_their_own(published, tmp_path, model_type):
    config = published / "tiny-uncased-config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": model_type}))
    assert pmlm("convert", "--weights", published / "tiny-uncased.bin", "--output_dir", tmp_path / "out") == 0


@pytest.mark.parametrize("lower", [True, False])
def test_a_bert_that_transformers_saved_converts_from_its_tokenizer_json(published, tmp_path, lower):
    """transformers 5 writes no vocab.txt."""
    there, out = tmp_path / "saved", tmp_path / "out"
    theirs = BertTokenizer(str(published / "tiny-uncased-vocab.txt"), do_lower_case=lower)
    theirs.save_pretrained(there)
    BertForMaskedLM(BertConfig.from_pretrained(published / "tiny-uncased-config.json")).save_pretrained(there)
    assert not (there / "vocab.txt").exists()
    assert pmlm("convert", "--weights", there, "--output_dir", out) == 0
    ours = AutoTokenizer.from_pretrained(out)
    for text in ("The cats sat.", "the dog", "unknown"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


def test_weights_in_several_files_are_put_together(published, tmp_path, capsys):
    model = BertForMaskedLM(BertConfig.from_pretrained(published / "tiny-uncased-config.json"))
    model.load_state_dict(torch.load(published / "tiny-uncased.bin"))
    there = tmp_path / "saved"
    model.save_pretrained(there, max_shard_size="4KB")
    (there / "vocab.txt").write_text("\n".join(WORDS))
    parts = sorted(there.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert pmlm("convert", "--weights", there, "--output_dir", tmp_path / "a") == 0
    assert pmlm("convert", "--weights", published / "tiny-uncased.bin", "--output_dir", tmp_path / "b") == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("a", "b")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    parts[0].unlink()
    capsys.readouterr()
    assert pmlm("convert", "--weights", there, "--output_dir", tmp_path / "c") == 2
    assert f"names {parts[0].name}, which does not lie beside it" in " ".join(capsys.readouterr().err.split())


def test_an_index_does_not_lead_out_of_its_folder(published, capsys):
    index = published / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    (published / "config.json").write_text((published / "tiny-uncased-config.json").read_text())
    (published / "vocab.txt").write_text((published / "tiny-uncased-vocab.txt").read_text())
    assert pmlm("convert", "--weights", index, "--output_dir", published / "out") == 1
    assert "do not use this model" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "command",
    [
        ("fill", "the [MASK]", "--model"),
        ("finetune", "--task", "rte", "--data_dir", ".", "--output_dir", "o", "--model"),
        ("predict", "in.jsonl", "--output_dir", "o", "--model"),
    ],
)
@pytest.mark.parametrize(
    ("model_type", "way_out"),
    [
        ("bert", "is a 'bert', not a pmlm checkpoint; `pmlm convert --weights {} --output_dir NEW` makes a pmlm model"),
        (None, "is a model of no named type, not a pmlm checkpoint; `pmlm convert --weights {} --output_dir NEW`"),
        ("gpt2", "is a 'gpt2', not a pmlm checkpoint; give a folder that pmlm pretrain, finetune or convert made"),
    ],
)
def test_commands_that_are_given_another_model_say_what_makes_it_ours(
    tmp_path, capsys, monkeypatch, command, model_type, way_out
):
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "in.jsonl").write_text('{"text": "some text"}\n')
    (theirs / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": ["X"]}))
    assert pmlm(*command, theirs) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"model {theirs} {way_out.format(theirs)}" in told


def test_pre_training_from_another_model_says_what_makes_it_ours(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(NotThereError, match=r"init_checkpoint .* is a 'bert', .*pmlm convert --weights"):
        start_of(PretrainConfig("", "", init_checkpoint=str(tmp_path)))


class _Code:
    def __reduce__(self):
        return os.system, ("touch /tmp/pmlm-was-run",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "tiny-uncased.bin").write_bytes(pickle.dumps({"bert.x": _Code()})), "such a file may run code"),
        (lambda f: (f / "tiny-uncased.bin").write_bytes(b"nothing of the kind"), "holds more than weights, or none"),
        (lambda f: (f / "tiny-uncased-config.json").write_text("[1]"), "holds a list"),
        (lambda f: (f / "tiny-uncased-config.json").write_text("{"), "is no JSON"),
        (lambda f: (f / "tiny-uncased-config.json").unlink(), "name it by --model_config"),
        (lambda f: (f / "tiny-uncased-vocab.txt").write_text("\n".join([*WORDS, "more"])), "15 tokens, but the model"),
        (lambda f: (f / "tiny-uncased.bin").unlink(), "no such file"),
    ],
)
def test_files_that_cannot_be_used_are_named(published, tmp_path, capsys, change, message):
    change(published)
    assert pmlm("convert", "--weights", published / "tiny-uncased.bin", "--output_dir", tmp_path / "out") in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not Path("/tmp/pmlm-was-run").exists()
