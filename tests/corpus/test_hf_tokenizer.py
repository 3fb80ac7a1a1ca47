"""PmlmTokenizer: AutoTokenizer finds it, ids as TextTokenizer gives, pairs, padding, masks only when asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizer_makers import KINDS, make
from transformers import AutoTokenizer, BertTokenizer

from pmlm_core.corpus.hf_tokenizer import PmlmTokenizer
from pmlm_core.corpus.tokenizer import TextTokenizer

HARD = ["[MASK] and [SOS][EOS] <s> [PSEUDO]#", "☃ 龍 [MASK]", "", "  two  spaces\nand a line ", "[EOS]# [MASK]#"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request, sample_texts, tmp_path_factory) -> tuple[TextTokenizer, PmlmTokenizer]:
    """A tokenizer and what AutoTokenizer makes of its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    own = make(request.param, sample_texts)
    own.save(str(folder))
    return own, AutoTokenizer.from_pretrained(str(folder))


def own_ids(own: TextTokenizer, text: str) -> list[int]:
    return [own.special_ids.sos, *own.encode([text])[0].tolist(), own.special_ids.eos]


def test_auto_tokenizer_gives_the_same_ids(pair, sample_texts):
    own, hugging = pair
    assert isinstance(hugging, PmlmTokenizer)
    texts = [*sample_texts[:40], "\n".join(sample_texts[:20]), *HARD]
    encoded = hugging(texts, add_special_tokens=False)["input_ids"]
    assert encoded == [ids.tolist() for ids in own.encode(texts)]


def test_special_tokens_have_our_ids(pair):
    own, hugging = pair
    ids = own.special_ids
    assert (hugging.cls_token_id, hugging.bos_token_id) == (ids.sos, ids.sos)
    assert (hugging.sep_token_id, hugging.eos_token_id) == (ids.eos, ids.eos)
    assert (hugging.pad_token_id, hugging.unk_token_id, hugging.mask_token_id) == (ids.pad, ids.unk, ids.mask)
    assert hugging.convert_tokens_to_ids(hugging.pseudo_token) == ids.pseudo
    assert len(hugging) == hugging.vocab_size == len(hugging.get_vocab()) == own.vocab_size


def test_a_pair_is_sos_a_eos_b_eos(pair):
    own, hugging = pair
    a, b = (ids.tolist() for ids in own.encode(["the time", "machine and [EOS] he"]))
    sos, eos = own.special_ids.sos, own.special_ids.eos
    encoded = hugging("the time", "machine and [EOS] he", return_special_tokens_mask=True)
    assert encoded["input_ids"] == [sos, *a, eos, *b, eos]
    assert encoded["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert encoded["attention_mask"] == [1] * (len(a) + len(b) + 3)
    assert encoded["special_tokens_mask"] == [1, *[0] * len(a), 1, *[0] * len(b), 1]
    assert hugging("the time")["input_ids"] == [sos, *a, eos]


def test_padding_and_truncation(pair):
    own, hugging = pair
    batch = hugging(["the time machine and he", "the"], padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).tolist()
    assert batch["input_ids"].shape[1] == max(lengths) > min(lengths)
    assert set(batch["input_ids"][1, lengths[1] :].tolist()) == {own.special_ids.pad}
    cut = hugging("the time " * 900, truncation=True)["input_ids"]
    assert len(cut) == 512
    assert cut[-1] == own.special_ids.eos


def test_masks_come_from_text_only_when_asked(pair):
    own, hugging = pair
    text = "the [MASK] machine"
    assert own.special_ids.mask not in hugging(text)["input_ids"]
    assert hugging.tokenize("[SOS]") != ["[SOS]"]
    asked = hugging(text, split_special_tokens=False)["input_ids"]
    before, after = (ids.tolist() for ids in own.encode(["the", "machine"]))
    assert asked == [own.special_ids.sos, *before, own.special_ids.mask, *after, own.special_ids.eos]
    assert hugging.decode(asked).replace(" ", "").count("the[MASK]machine") == 1


def test_decoding(pair, sample_texts):
    own, hugging = pair
    for text in sample_texts[:10]:
        ids = hugging(text)["input_ids"]
        assert hugging.decode(ids, skip_special_tokens=True) == own.decode(ids) or own.special_ids.unk in ids
    names = own.backend.special_tokens
    assert hugging.decode(hugging("the time")["input_ids"]) == f"{names['sos']} the time {names['eos']}"
    with pytest.raises(IndexError, match="outside"):
        hugging.decode([own.vocab_size + 5])


def test_saving_and_loading_again_changes_nothing(pair, tmp_path, sample_texts):
    own, hugging = pair
    hugging.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert again.text_tokenizer.fingerprint == TextTokenizer.load(str(tmp_path)).fingerprint == own.fingerprint
    texts = [*sample_texts[:5], *HARD]
    assert again(texts)["input_ids"] == hugging(texts)["input_ids"]
    assert again("a [MASK]")["input_ids"] == hugging("a [MASK]")["input_ids"]
    again.save_pretrained(tmp_path / "third")
    assert json.loads((tmp_path / "third/tokenizer_config.json").read_text()) == json.loads(
        (tmp_path / "tokenizer_config.json").read_text()
    )


def test_added_tokens_come_behind_the_vocabulary(pair, tmp_path):
    own, hugging = pair
    hugging = AutoTokenizer.from_pretrained(hugging.name_or_path)
    assert hugging.add_tokens(["zzyzx"]) == 1
    assert hugging.convert_tokens_to_ids("zzyzx") == own.vocab_size
    hugging.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert own.vocab_size in again("the zzyzx", split_special_tokens=False)["input_ids"]
    sos, eos = own.special_ids.sos, own.special_ids.eos
    the, mask = (own.encode([text])[0].tolist() for text in ("the ", " [MASK]"))
    for each in (hugging, again):  # found by itself, while special text stays text
        assert each("the zzyzx [MASK]")["input_ids"] == [sos, *the, own.vocab_size, *mask, eos]
        assert each("the [MASK]")["input_ids"] == own_ids(own, "the [MASK]")


def test_a_target_has_no_sos(pair):
    own, hugging = pair
    given = hugging("the time", text_target="machine and he")
    assert given["input_ids"] == own_ids(own, "the time")
    assert given["labels"] == own_ids(own, "machine and he")[1:]
    assert hugging("machine and he")["input_ids"] == own_ids(own, "machine and he")


def test_without_the_import_it_is_refused_with_what_to_import(sample_tokenizer_dir, tmp_path):
    """transformers has a tokenizer of its own for such a file, whose ids are others."""
    TextTokenizer.load(sample_tokenizer_dir).save(str(tmp_path))
    code = "import sys; from transformers import AutoTokenizer; AutoTokenizer.from_pretrained(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode != 0
    assert "import pmlm_core.model.auto before it is loaded" in done.stderr


def test_a_fresh_process_finds_it_in_a_checkpoint_folder(sample_tokenizer_dir, tmp_path):
    for file in Path(sample_tokenizer_dir).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "pmlm", "vocab_size": 1000}')
    code = (
        "import sys, pmlm_core.corpus.hf_tokenizer\n"
        "from transformers import AutoTokenizer\n"
        "print(AutoTokenizer.from_pretrained(sys.argv[1])('The Time Machine')['input_ids'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    own = TextTokenizer.load(str(tmp_path)).encode(["The Time Machine"])[0].tolist()
    assert json.loads(done.stdout) == [0, *own, 2]


def test_a_bert_vocabulary_gives_what_bert_gives(sample_texts, tmp_path):
    make("wordpiece", sample_texts).save(str(tmp_path))
    ours = AutoTokenizer.from_pretrained(str(tmp_path))
    bert = BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
    texts = [*sample_texts[:40], "Crème brûlée, ÉTÉ! 中文 x\u200by"]
    assert ours(texts)["input_ids"] == bert(texts)["input_ids"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"no tokenizer|load"):
        PmlmTokenizer.from_pretrained(str(tmp_path))
