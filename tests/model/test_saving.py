"""Checkpoints as Hugging Face folders: the round trip, the Auto classes, the shared weights, the initialisation."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining

from pmlm_core.model import PmlmConfig, PmlmForMaskedLM, PmlmForPreTraining, PmlmModel


@pytest.fixture
def saved(make_model, tmp_path):
    model = make_model("AE+AR").float()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_round_trip_gives_the_same_losses_and_configuration(saved, make_batch):
    model, folder = saved
    again = PmlmForPreTraining.from_pretrained(folder).eval()
    batch = make_batch("AE+AR")
    assert model(**batch).loss.item() == again(**batch).loss.item()
    expected, got = model.config.to_dict(), again.config.to_dict()
    assert {k: v for k, v in got.items() if k != "_name_or_path"} == {
        k: v for k, v in expected.items() if k != "_name_or_path"
    } | {"architectures": ["PmlmForPreTraining"], "dtype": "float32"}
    assert json.loads((folder / "config.json").read_text())["model_type"] == "pmlm"


def test_every_tensor_is_saved_once(saved):
    model, folder = saved
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == {name for name, _ in model.named_parameters()}
    assert sum(tuple(x.shape) == (60, 32) for x in weights.values()) == 1, "token embedding and output layer are one"


def test_output_layer_follows_the_token_embedding(make_model, make_batch):
    model, batch = make_model(), make_batch()
    before = model(batch["input_ids"]).logits
    with torch.no_grad():
        model.get_input_embeddings().weight[59] *= 2
    after = model(batch["input_ids"]).logits
    assert not torch.allclose(before[..., 59], after[..., 59])


@pytest.mark.parametrize("size", [75, 50])
def test_the_output_layer_follows_a_resized_vocabulary_through_a_checkpoint(size, make_model, make_batch, tmp_path):
    model, ids = make_model().float(), make_batch()["input_ids"] % 50
    torch.nn.init.normal_(model.head.bias)
    before, kept = model(ids).logits, min(size, 60)
    model.resize_token_embeddings(size)
    after = model(ids).logits
    assert after.shape == (*ids.shape, size)
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    model.save_pretrained(tmp_path)
    again = PmlmForPreTraining.from_pretrained(tmp_path).eval()
    assert again.config.vocab_size == size
    assert torch.equal(again(ids).logits, after)
    again(ids, labels=ids[:, :1], pseudo_position_ids=ids[:, :1] * 0, pseudo_steps=ids[:, :1] * 0 + 1).loss.backward()
    assert again.head.bias.grad.shape == (size,)


@pytest.mark.parametrize(
    ("auto", "cls"),
    [(AutoModel, PmlmModel), (AutoModelForMaskedLM, PmlmForMaskedLM), (AutoModelForPreTraining, PmlmForPreTraining)],
)
def test_auto_classes_load_the_checkpoint_whole(auto, cls, saved):
    model, folder = saved
    loaded, info = auto.from_pretrained(folder, output_loading_info=True)
    assert type(loaded) is cls
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    expected = model.state_dict()
    prefix = "pmlm." if cls is PmlmModel else ""
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected[prefix + name])


def test_masked_lm_gives_the_pretraining_models_logits(saved, make_batch):
    model, folder = saved
    batch = make_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    masked_lm = PmlmForMaskedLM.from_pretrained(folder).eval()
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    output = masked_lm(**inputs, labels=labels)
    assert torch.equal(output.logits, model(**inputs).logits)
    expected = torch.nn.functional.cross_entropy(output.logits[labels != -100], labels[labels != -100])
    torch.testing.assert_close(output.loss, expected)


def test_a_fresh_process_loads_it(saved):
    _, folder = saved
    code = (
        "import pmlm_core.model.auto, transformers, torch; "
        f"m = transformers.AutoModelForMaskedLM.from_pretrained({str(folder)!r}); "
        "print(m(torch.tensor([[0, 9, 4, 2]])).logits.shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch.Size([1, 4, 60])" in run.stdout


def test_initialisation(make_model):
    model = PmlmForPreTraining(
        PmlmConfig(vocab_size=500, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256)
    )
    for name, p in model.named_parameters():
        if "norm.weight" in name:
            assert (p == 1).all(), name
        elif "bias" in name.split(".")[-1]:
            assert (p == 0).all(), name
        else:
            assert abs(p.std().item() - 0.02) < 0.004, name
            assert abs(p.mean().item()) < 0.004, name


def test_light_modules_do_not_import_torch():
    modules = ", ".join(f"pmlm_core.model.{name}" for name in ("presets", "cost", "objectives"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
