"""Filling masks: the split at [MASK], what follows a mask without a space, and the probabilities."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import CheckpointError, ConfigError
from pmlm_core.model import PmlmConfig, PmlmForMaskedLM, PmlmForPreTraining
from pmlm_core.model.filling import Filler

pytestmark = pytest.mark.usefixtures("one_thread")
SENTENCE = "The old man went into the house."


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A tiny model's products are too short to share: on a busy machine the threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer(sample_tokenizer_dir: str) -> TextTokenizer:
    return TextTokenizer.load(sample_tokenizer_dir)


def checkpoint(folder: Path, tokenizer: TextTokenizer, *, objective: str = "AE+PAR", steps: int = 0) -> Path:
    """A tiny model, after `steps` updates on one sentence with "man" masked, as the objective has it."""
    torch.manual_seed(0)
    config = PmlmConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        objective=objective,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = PmlmForPreTraining(config)
    if steps:
        special = tokenizer.special_ids
        before, word, after = tokenizer.encode(["The old", "man", "went into the house."])
        ids = torch.tensor([[special.sos, *before, *word, *after, special.eos]])
        positions = torch.arange(len(before) + 1, len(before) + 1 + len(word))[None]
        labels = ids.gather(1, positions)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(steps):
            loss = model(
                ids.scatter(1, positions, special.mask),
                pseudo_position_ids=positions,
                pseudo_steps=torch.ones_like(positions),
                labels=labels,
            ).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def filler(tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Filler:
    return Filler(str(checkpoint(tmp_path_factory.mktemp("model"), tokenizer)))


@pytest.mark.parametrize("objective", ["AE", "AE+PAR", "PAR", "AR"])
def test_what_was_learned_is_found(tmp_path: Path, tokenizer: TextTokenizer, objective: str) -> None:
    """Each objective's model is read where it was trained: a PAR model's conventional masks never learn anything."""
    (word,) = tokenizer.encode(["man"])
    filler = Filler(str(checkpoint(tmp_path, tokenizer, objective=objective, steps=40)))
    (filled,) = filler.fill(["The old" + " [MASK]" * len(word) + " went into the house."])
    assert filled.filled == SENTENCE
    assert [mask[0].token_id for mask in filled.masks] == word.tolist()
    assert all(mask[0].probability > 0.5 for mask in filled.masks)


def test_probabilities_are_those_of_the_masked_language_model(filler: Filler, tokenizer: TextTokenizer) -> None:
    text = "The [MASK] man went into the [MASK]."
    (filled,) = filler.fill([text], top_k=len(tokenizer.ordinary_ids))
    ids = torch.from_numpy(filler.encode(text).astype(np.int64))[None]
    model = filler.model
    assert isinstance(model, PmlmForMaskedLM)
    with torch.no_grad():
        logits_MV = model(ids).logits[ids == tokenizer.special_ids.mask]
    ordinary = torch.from_numpy(np.array(tokenizer.ordinary_ids, dtype=np.int64))
    expected_MO = logits_MV[:, ordinary].softmax(-1)
    assert len(filled.masks) == len(expected_MO) == 2
    for mask, expected_O in zip(filled.masks, expected_MO, strict=True):
        found = {candidate.token_id: candidate.probability for candidate in mask}
        np.testing.assert_allclose([found[i] for i in ordinary.tolist()], expected_O.numpy(), atol=1e-5)
        ps = [candidate.probability for candidate in mask]
        assert ps == sorted(ps, reverse=True)


def test_special_tokens_are_never_candidates(filler: Filler, tokenizer: TextTokenizer) -> None:
    with torch.no_grad():
        filler.model.head.bias[list(tokenizer.special_ids.as_dict().values())] += 50.0
        (filled,) = filler.fill(["The [MASK] man"], top_k=50)
        filler.model.head.bias[list(tokenizer.special_ids.as_dict().values())] -= 50.0
    assert not {c.token_id for c in filled.masks[0]} & set(tokenizer.special_ids.as_dict().values())


@pytest.mark.parametrize(
    ("masked", "whole"),
    [
        ("The [MASK] man went into the house.", "The old man went into the house."),
        ("The old man went into the [MASK].", "The old man went into the house."),
        ("[MASK], said the old man, and [MASK]!", "No, said the old man, and no!"),
        ("“[MASK]” said he", "“No” said he"),
    ],
)
def test_text_around_a_mask_is_encoded_as_in_the_whole_text(
    filler: Filler, tokenizer: TextTokenizer, masked: str, whole: str
) -> None:
    """In particular "." after a mask is the token that closes sentences, not one that starts a word."""
    special = tokenizer.special_ids
    ids = filler.encode(masked).tolist()
    assert ids[0] == special.sos
    assert ids[-1] == special.eos
    assert ids.count(special.mask) == masked.count("[MASK]")
    (reference,) = tokenizer.encode([whole])
    runs: list[list[int]] = [[]]
    for token in ids[1:-1]:
        if token == special.mask:
            runs.append([])
        else:
            runs[-1].append(token)
    # The text around the masks is a subsequence of the whole text's tokens, each run in one stretch and in order.
    position = 0
    for run in filter(None, runs):
        starts = [i for i in range(position, len(reference)) if reference[i : i + len(run)].tolist() == run]
        assert starts, f"{[tokenizer.backend.piece(i) for i in run]} is not how the whole text is encoded"
        position = starts[0] + len(run)


def test_each_text_is_filled_by_itself(filler: Filler) -> None:
    texts = ["The [MASK] man", "He went [MASK] the old house and [MASK] the door"]
    together = filler.fill(texts)
    assert together == [filler.fill([text])[0] for text in texts]
    assert [len(one.masks) for one in together] == [1, 2]


def test_texts_that_cannot_be_filled(filler: Filler) -> None:
    with pytest.raises(ConfigError, match=r"text 2 has no \[MASK\]"):
        filler.fill(["a [MASK]", "nothing"])
    with pytest.raises(ConfigError, match="512 positions"):
        filler.fill(["[MASK] " + "house " * 600])
    with pytest.raises(ConfigError, match="top_k"):
        filler.fill(["[MASK]"], top_k=0)
    with pytest.raises(ConfigError, match="top_k"):
        filler.fill(["[MASK]"], top_k=10**6)


def test_a_text_longer_than_those_of_training_is_said(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    folder, heard = checkpoint(tmp_path, tokenizer), []
    tokenizer.save(str(folder), model_max_length=16)
    filler = Filler(str(folder), warn=heard.append)
    filler.fill(["[MASK] house"])
    assert heard == []
    filler.fill(["[MASK] house", "[MASK] " + "house " * 20])
    assert len(heard) == 1
    assert heard[0].startswith("text 2 has ")
    assert "trained on rows of 16" in heard[0]


def test_folders_that_hold_no_model(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        Filler("bert-base-uncased")
    run = tmp_path / "run"
    checkpoint(run / "final", tokenizer)
    with pytest.raises(CheckpointError, match=r"did you mean .*run/final"):
        Filler(str(run))


def test_a_model_without_a_vocabulary_at_its_end_is_refused(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    folder = checkpoint(tmp_path, tokenizer)
    settings = json.loads((folder / "config.json").read_text())
    assert Filler(str(folder)).fill(["[MASK]"])
    (folder / "config.json").write_text(json.dumps(settings | {"architectures": ["PmlmForSequenceClassification"]}))
    with pytest.raises(CheckpointError, match=r"no output layer .*pmlm predict uses it"):
        Filler(str(folder))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    folder = checkpoint(tmp_path, tokenizer)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    for name in tokenizer.backend.files():
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "old"]) + "\n")
    with pytest.raises(CheckpointError, match="not the one the model"):
        Filler(str(folder))


def test_weights_that_were_cut_off_are_said_to_be_damaged(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    cut = checkpoint(tmp_path / "cut", tokenizer)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"cut cannot be read, it may be damaged: SafetensorError"):
        Filler(str(cut))
