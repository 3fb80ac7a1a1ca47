"""What a forward pass refuses, what it lets pass, and in which order its outputs lie."""

import pytest
import torch
from generation_makers import SOURCES, TARGETS, pad, small_model
from torch import nn

from pmlm_core.model import (
    PmlmConfig,
    PmlmForConditionalGeneration,
    PmlmForMaskedLM,
    PmlmForPreTraining,
    PmlmForQuestionAnswering,
    PmlmForSequenceClassification,
    PmlmModel,
)
from pmlm_core.training.finetuning import finetuning_task

IDS = pad(SOURCES)
SLOTS = {"pseudo_position_ids": torch.tensor([[1]] * 3), "pseudo_steps": torch.ones(3, 1, dtype=torch.int64)}
LABELS = {
    PmlmForPreTraining: {**SLOTS, "labels": IDS[:, 1:2]},
    PmlmForMaskedLM: {"labels": IDS},
    PmlmForSequenceClassification: {"labels": torch.tensor([0, 1, 1])},
    PmlmForQuestionAnswering: {"start_positions": torch.ones(3).long(), "end_positions": torch.ones(3).long()},
    PmlmForConditionalGeneration: {"labels": pad(TARGETS, -100)},
}
SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def make(cls: type, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return cls(PmlmConfig(**SMALL | options)).eval()


@pytest.mark.parametrize("cls", [PmlmModel, *LABELS])
def test_a_misspelt_argument_is_refused_and_what_transformers_gives_to_all_is_not(cls):
    model, labels = make(cls), LABELS.get(cls, {})
    with pytest.raises(TypeError, match=r"no 'atention_mask'; did you mean 'attention_mask'\?"):
        model(IDS, atention_mask=torch.ones_like(IDS), **labels)
    with pytest.raises(TypeError, match="no 'output_attentions'"):
        model(IDS, output_attentions=True, **labels)
    with pytest.raises(ValueError, match="to_tuple"):
        model(IDS, return_dict=False, **labels)
    given = {"return_dict": True, "output_attentions": False, "output_hidden_states": None, "use_cache": True}
    model(IDS, num_items_in_batch=torch.tensor(3), inputs_embeds=None, **given, **labels)


@pytest.mark.parametrize("cls", LABELS)
def test_the_loss_is_the_first_output(cls):
    output = make(cls)(IDS, **LABELS[cls])
    assert output[0] is output.loss is output.to_tuple()[0]


@pytest.mark.parametrize("cls", LABELS)
def test_the_loss_is_not_said_to_be_divided_by_the_items_of_an_accumulated_batch(cls):
    """transformers.Trainer would take it for that because of the ** in the arguments, and divide no more."""
    assert cls.accepts_loss_kwargs is False


@pytest.mark.parametrize("missing", ["pseudo_position_ids", "pseudo_steps", "true_ids"])
def test_an_appended_part_is_whole_or_not_there(missing):
    parts = {**SLOTS, "true_ids": IDS[:, 1:2]}
    model = make(PmlmModel)
    assert model(IDS, **parts).pseudo_hidden_state is not None
    with pytest.raises(ValueError, match="give all of them, or none"):
        model(IDS, **{name: x for name, x in parts.items() if name != missing})


def test_a_step_of_decoding_has_no_loss():
    model = small_model()
    source, target = model.get_encoder()(IDS), {"labels": pad(TARGETS, -100)}
    with pytest.raises(TypeError, match="did you mean 'attention_mask'"):
        model.get_encoder()(IDS, atention_mask=torch.ones_like(IDS))
    for given in (target, {"input_ids": IDS, **target}, {"decoder_input_ids": IDS, **target}, {}):
        with pytest.raises(ValueError, match="make one step of decoding"):
            model(encoder_outputs=source, **given)


def test_labels_may_be_a_column_and_are_one_a_row():
    for number, labels in ((1, torch.tensor([0.5, 4.75, 2.0])), (3, torch.tensor([2, 0, 1]))):
        model = make(PmlmForSequenceClassification, num_labels=number)
        expected = model(IDS, labels=labels)
        assert torch.equal(model(IDS, labels=labels[:, None]).loss, expected.loss)
        with pytest.raises(ValueError, match=r"labels has the shape \(1,\), and the batch 3 rows"):
            model(IDS, labels=labels[:1])
    model, answers = make(PmlmForQuestionAnswering), torch.tensor([3, 0, 1])
    expected = model(IDS, start_positions=answers, end_positions=answers)
    got = model(IDS, start_positions=answers[:, None], end_positions=answers[:, None])
    assert torch.equal(got.loss, expected.loss)
    assert got.correct.item() == expected.correct.item()


def test_a_row_without_a_label_does_not_count():
    model = make(PmlmForSequenceClassification, num_labels=3)
    output = model(IDS, labels=torch.tensor([2, -100, 1]))
    two = model(IDS[::2], labels=torch.tensor([2, 1]))
    torch.testing.assert_close(output.loss, two.loss)
    assert output.correct.item() == two.correct.item()
    assert finetuning_task("classification").count({"labels": torch.tensor([2, -100, 1])}) == 2
    assert finetuning_task("regression").count({"labels": torch.tensor([2.0, -100.0, 1.0])}) == 3
    assert model(IDS, labels=torch.full((3,), -100)).loss.item() == 0


@pytest.mark.parametrize("cls", [PmlmForSequenceClassification, PmlmForQuestionAnswering])
def test_positions_are_heeded(cls):
    model = make(cls, initializer_range=0.4)
    usual = torch.arange(IDS.shape[1])[None]
    default, given, other = (torch.stack(model(IDS, position_ids=at).to_tuple()) for at in (None, usual, usual.flip(1)))
    torch.testing.assert_close(given, default)
    assert not torch.allclose(other, default)


@pytest.mark.parametrize("appended", [False, True])
def test_states_after_every_layer_are_there_if_asked_for(appended):
    slots = {**SLOTS, "true_ids": IDS[:, 1:2]} if appended else {}
    model = make(PmlmModel, num_hidden_layers=3)
    plain, output = model(IDS, **slots), model(IDS, **slots, output_hidden_states=True)
    assert plain.hidden_states is None
    assert [tuple(states.shape) for states in output.hidden_states] == [(*IDS.shape, 16)] * 4
    assert torch.equal(output.hidden_states[-1], plain.last_hidden_state)
    # A model of fewer layers ends where the deeper one goes on.
    shallow = make(PmlmModel, num_hidden_layers=1)
    shallow.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(output.hidden_states[1], shallow(IDS, **slots).last_hidden_state)
    asked = make(PmlmModel, output_hidden_states=True)
    assert len(asked(IDS).hidden_states) == 2
    assert asked(IDS, output_hidden_states=False).hidden_states is None
