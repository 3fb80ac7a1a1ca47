"""The loss of generation against one cloze pass per target token, in float64."""

import pytest
import torch
from generation_makers import SOURCES, TARGETS, pad, small_model
from oracles.generation import next_log_probabilities
from torch.nn import functional as F
from transformers.utils.generic import find_labels

from pmlm_core.errors import ConfigError
from pmlm_core.model import PmlmConfig, PmlmForConditionalGeneration
from pmlm_core.model.positions import extend_positions

SOS, EOS = 0, 2


@pytest.mark.parametrize("rel_pos_bins", [8, 0])
def test_loss_and_gradients_are_those_of_one_cloze_pass_a_token(rel_pos_bins):
    model = small_model(rel_pos_bins=rel_pos_bins)
    output = model(pad(SOURCES), labels=pad(TARGETS, -100))
    expected = torch.zeros((), dtype=torch.float64)
    for source, target in zip(SOURCES, TARGETS, strict=True):
        for i, token in enumerate(target):
            expected = expected - next_log_probabilities(model, source, target[:i])[token]
    torch.testing.assert_close(output.loss_sum, expected, rtol=1e-10, atol=1e-10)
    assert output.num_predictions.item() == 9
    torch.testing.assert_close(output.loss, expected / 9, rtol=1e-10, atol=1e-10)
    output.loss_sum.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-8, atol=1e-8)
        assert p.grad.abs().max() > 0, f"{name} is not trained"


def test_logits_are_those_the_loss_is_made_of():
    model, labels = small_model(), pad(TARGETS, -100)
    start = torch.zeros(3, 1, dtype=torch.int64)
    given = torch.cat([start, labels[:, :-1].clamp(min=1)], 1)
    logits = model(pad(SOURCES), decoder_input_ids=given).logits
    assert logits.shape == (3, 5, 60)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    output = model(pad(SOURCES), labels=labels)
    torch.testing.assert_close(output.loss_sum, expected)
    assert output.correct.item() == (logits.argmax(-1) == labels).sum().item()


def test_label_smoothing_is_torchs_in_value_and_gradient():
    model, labels = small_model(), pad(TARGETS, -100)
    given = torch.cat([labels[:, :1], labels[:, :-1]], 1).clamp(min=1)
    logits = model(pad(SOURCES), decoder_input_ids=given).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    loss = model(pad(SOURCES), labels=labels, smoothing=0.1).loss
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert abs(loss / model(pad(SOURCES), labels=labels).loss - 1) > 0.01
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-8, atol=1e-10)


def test_word_drop_changes_what_later_slots_see_and_not_what_is_asked():
    model, labels = small_model(), torch.tensor([[21, 14, 30, 2]])
    source = pad(SOURCES[:1])
    dropped = torch.tensor([[0, 21, 4, 30]])  # [MASK] for the second of the true tokens
    logits = model(source, decoder_input_ids=torch.tensor([[0, 21, 14, 30]])).logits
    with_drop = model(source, decoder_input_ids=dropped).logits
    torch.testing.assert_close(with_drop[:, :2], logits[:, :2])
    assert not torch.allclose(with_drop[:, 2:], logits[:, 2:])
    loss = model(source, labels=labels, decoder_input_ids=dropped).loss
    torch.testing.assert_close(loss, F.cross_entropy(with_drop[0], labels[0]))


def test_a_label_left_out_of_the_loss_leaves_its_token_in_the_target():
    model, labels = small_model(), torch.tensor([[21, 14, 30, 2, -100]])
    source, given = pad(SOURCES[:1]), torch.tensor([[0, 21, 14, 30, 1]])
    logits = model(source, decoder_input_ids=given[:, :4]).logits
    asked = labels.clone()
    asked[0, :2] = -100
    output = model(source, labels=asked, decoder_input_ids=given)
    assert output.num_predictions.item() == 2
    torch.testing.assert_close(output.loss, F.cross_entropy(logits[0, 2:], labels[0, 2:4]))
    with pytest.raises(ValueError, match=r"before the last of its row is -100.*Give decoder_input_ids"):
        model(source, labels=asked)


def test_padding_and_its_side_change_nothing():
    model, labels = small_model(), pad(TARGETS, -100)
    expected = model(pad(SOURCES), labels=labels).loss_sum
    left = pad(SOURCES, left=True)
    torch.testing.assert_close(model(left, labels=labels).loss_sum, expected)
    torch.testing.assert_close(model(left, (left != 1).long(), labels=labels).loss_sum, expected)
    one_mask = torch.ones(1, left.shape[1], dtype=torch.int64)
    torch.testing.assert_close(model(left, one_mask, labels=labels), model(left, one_mask.expand(3, -1), labels=labels))
    alone = sum(model(pad([s]), labels=pad([t])).loss_sum for s, t in zip(SOURCES, TARGETS, strict=True))
    torch.testing.assert_close(alone, expected)


def test_a_row_beyond_the_positions_is_refused_and_padding_is_not():
    model = small_model(max_position_embeddings=10)
    model(pad(SOURCES), labels=pad([[21, 14, 2], [9] * 7, [2]], -100))  # 7 + 3, 3 + 7: just fits
    with pytest.raises(ValueError, match="need 11 positions and the model has 10"):
        model(pad(SOURCES), labels=pad([[21, 14, 2], [9] * 8, [2]], -100))


def test_missing_inputs_are_named():
    with pytest.raises(ValueError, match="labels or decoder_input_ids"):
        small_model()(pad(SOURCES))


def test_more_positions_repeat_the_learned_ones():
    model, roomy = small_model(max_position_embeddings=10), small_model(max_position_embeddings=10)
    extend_positions(roomy, 23)
    old, new = (m.pmlm.embeddings.position.weight for m in (model, roomy))
    assert torch.equal(new, torch.cat([old, old, old])[:23])
    assert roomy.config.max_position_embeddings == roomy.pmlm.config.max_position_embeddings == 23
    labels = pad(TARGETS, -100)[:, :3]
    torch.testing.assert_close(roomy(pad(SOURCES), labels=labels).loss, model(pad(SOURCES), labels=labels).loss)
    assert roomy(pad(SOURCES), labels=pad([[21] * 16], -100).expand(3, -1)).loss.isfinite()
    extend_positions(roomy, 5)
    assert roomy.config.max_position_embeddings == 23
    with pytest.raises(ConfigError, match="at least one"):
        extend_positions(roomy, 0)


def test_labels_with_sos_are_refused():
    labels = torch.tensor([[SOS, 7, 9, EOS]])
    with pytest.raises(ValueError, match=r"label is \[SOS\], which is never generated"):
        small_model()(pad(SOURCES[:1]), labels=labels)


def test_the_decoders_input_is_what_labels_imply():
    model = small_model().eval()
    labels = torch.tensor([[7, 9, EOS], [8, EOS, -100]])
    before = model.prepare_decoder_input_ids_from_labels(labels)
    sos, pad_id = SOS, model.config.pad_token_id
    assert before.tolist() == [[sos, 7, 9], [sos, 8, EOS]]
    assert (before != -100).all()
    assert pad_id not in before[0]
    implied = model(pad(SOURCES[:2]), labels=labels)
    told = model(pad(SOURCES[:2]), labels=labels, decoder_input_ids=before)
    torch.testing.assert_close(told.loss, implied.loss)
    logits = model(pad(SOURCES[:2]), decoder_input_ids=before).logits
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), labels.flatten()), implied.loss)


def test_transformers_trainer_knows_labels_and_predictions():
    """By the names of arguments, and by the configuration's list of what is no prediction."""
    assert find_labels(PmlmForConditionalGeneration) == ["labels"]
    outputs = small_model()(pad(SOURCES[:1]), labels=torch.tensor([[7, EOS]]))
    left = [name for name in outputs if name not in (*PmlmConfig.keys_to_ignore_at_inference, "loss")]
    assert left == []
