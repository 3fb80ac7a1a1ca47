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


def make(cls: type) -> nn.Module:
    return cls(PmlmConfig(**SMALL)).eval()


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
